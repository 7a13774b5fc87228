"""Headers and refusals, without decoding."""

import pytest

from diptych.data.image_header import BadImage, announced_size, check_png, jpeg_header, known_format, sniff
from tests.data.pictures import SVG, corrupt_png, encode, jpg, pixels, png


def test_formats_are_told_by_their_first_bytes() -> None:
    made = {n: encode(pixels(), f) for n, f in (("png", "PNG"), ("webp", "WEBP"), ("gif", "GIF"), ("bmp", "BMP"))}
    for name, data in {**made, "tiff": encode(pixels(), "TIFF"), "jpg": jpg(), "svg": SVG}.items():
        assert sniff(data) == name
    assert sniff(b"\xef\xbb\xbf  <svg xmlns='x'>") == "svg"
    assert sniff(b"<?xml version='1.0'?><note/>") is None
    assert sniff(b"") is None


def test_refusals_say_what_to_do() -> None:
    with pytest.raises(BadImage, match="Render it to PNG"):
        known_format(SVG, 1000)
    with pytest.raises(BadImage, match="a web page"):
        known_format(b"<html><body>", 1000)
    with pytest.raises(BadImage, match="got none"):
        known_format(b"", 1000)


def test_jpeg_header_of_garbage() -> None:
    for data in (b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\0" * 3, jpg()[:40] + b"\xff\xd9", b"\xff\xd8" + b"\xff" * 100):
        with pytest.raises(BadImage):
            jpeg_header(data)


def test_png_checksums() -> None:
    check_png(png(1))
    check_png(png(1) + b"stray")
    for data, reason in ((corrupt_png(1), "corrupt"), (png(1)[:-12], "truncated"), (png(1)[:-20], "truncated")):
        with pytest.raises(BadImage) as caught:
            check_png(data)
        assert caught.value.reason == reason


def test_sizes_are_known_before_any_library_opens_the_file() -> None:
    array = pixels(1, height=37, width=61)
    for name, format, options in (
        ("png", "PNG", {}),
        ("gif", "GIF", {}),
        ("bmp", "BMP", {}),
        ("webp", "WEBP", {}),
        ("webp", "WEBP", {"lossless": True}),
        ("webp", "WEBP", {"exif": b"Exif"}),
    ):
        data = encode(array, format, **options)
        assert announced_size(data, name) == (61, 37)
        for cut in range(30):
            announced_size(data[:cut], name)
    assert announced_size(encode(array, "TIFF"), "tiff") is None
