"""The decoder: every odd form of image, every refusal, and resizing against Pillow's."""

import contextlib
import io
import pickle
import warnings

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image, ImageOps

from diptych.core.errors import DataError
from diptych.core.image_format import ImageFormat
from diptych.data import decode
from diptych.data.decode import BadImage, decode_image, encode_jpeg, encode_png, encode_webp, probe, resize_image
from tests.data.pictures import BROKEN, SVG, animated, bomb_png, encode, jpg, pixels, png
from tests.reference import resize as plain


def rows(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def far(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_formats_come_back_exactly(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    array = pixels(1)
    data = encode(Image.fromarray(array).quantize(64) if format == "GIF" else array, format, **options)
    want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(rows(decode_image(data)), want)
    header = probe(data)
    assert (header.width, header.height, header.frames) == (32, 24, 1)


def test_jpeg_equals_pillow() -> None:
    data = jpg(3, height=50, width=70)
    assert far(rows(decode_image(data)), np.asarray(Image.open(io.BytesIO(data)))) <= 1  # two builds of one library
    assert probe(data).format == "jpg"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(pixels(2), format, exif=exif.tobytes(), **({"quality": 95} if format in ("JPEG", "WEBP") else {}))
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    got = rows(decode_image(data))
    assert got.shape == want.shape
    assert far(got, want) <= 4
    header = probe(data)
    assert (header.height, header.width, header.orientation) == (*want.shape[:2], orientation)


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_in_both_byte_orders(order: str) -> None:
    import struct

    tiff = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    block = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    data = jpg(1)
    assert probe(data[:2] + block + data[2:]).orientation == 6
    nonsense = block.replace(struct.pack(order + "I", 8), struct.pack(order + "I", 10**9), 1)
    assert probe(data[:2] + nonsense + data[2:]).orientation == 1


def test_alpha_is_laid_over_white() -> None:
    array = np.dstack([pixels(1), np.full((24, 32), 128, np.uint8)])
    want = (array[..., :3].astype(float) * 128 + 255 * 127) / 255
    assert far(rows(decode_image(encode(array))), want.round()) <= 1
    grey = Image.merge("LA", [Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 0)])
    assert rows(decode_image(encode(grey))).min() == 255


def test_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 1)
    got = rows(decode_image(encode(image, "PNG", transparency=0)))
    assert got[0, 0].tolist() == [0, 255, 0]
    assert got[1, 1].tolist() == [255, 255, 255]
    assert rows(decode_image(encode(image, "PNG")))[1, 1].tolist() == [255, 0, 0]


def test_a_transparent_colour_of_rgb_and_grey() -> None:
    assert rows(decode_image(encode(Image.new("RGB", (4, 4), (9, 8, 7)), "PNG", transparency=(9, 8, 7)))).min() == 255
    assert rows(decode_image(encode(Image.new("L", (4, 4), 9), "PNG", transparency=9))).min() == 255


def test_wide_values_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    want = np.rint(ramp / 257).astype(np.uint8)
    for format in ("PNG", "TIFF"):
        assert np.array_equal(rows(decode_image(encode(ramp, format)))[..., 0], want)
    for values, low, high in (
        (np.linspace(0, 1, 256, dtype=np.float32), 0, 255),
        (np.linspace(0, 200, 256, dtype=np.float32), 0, 200),
        (np.linspace(-5, 5000, 256, dtype=np.float32), 0, 255),
        (np.linspace(0, 65535, 256).astype(np.int32), 0, 255),
        (np.linspace(-100, 1_000_000, 256).astype(np.int32), 0, 255),
        (np.full(256, -3.0, np.float32), 127, 127),
    ):
        got = rows(decode_image(encode(values.reshape(16, 16), "TIFF")))
        assert (got.min(), got.max()) == (low, high)
    bad = np.full((4, 4), np.nan, np.float32)
    with pytest.raises(BadImage) as caught:
        decode_image(encode(bad, "TIFF"))
    assert caught.value.reason == "not_finite_pixels"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(pixels(1)).convert("L" if mode in ("I;16", "I", "F") else mode)
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray(np.asarray(image).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    got = decode_image(encode(image, "TIFF"))
    assert got.shape == (3, 24, 32)
    assert got.dtype == torch.uint8


def test_cmyk_jpeg() -> None:
    data = encode(Image.fromarray(pixels(1)).convert("CMYK"), "JPEG", quality=95)
    assert probe(data).mode == "CMYK"
    assert far(rows(decode_image(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) == 0


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(format: str) -> None:
    data = animated(format)
    assert probe(data).frames == 3
    first = Image.open(io.BytesIO(data))
    assert np.array_equal(rows(decode_image(data)), np.asarray(first.convert("RGB")))


@pytest.mark.parametrize("kind", [k for k in BROKEN if k not in ("thread", "corrupt png")])
def test_broken_images_are_refused_with_their_reason(kind: str) -> None:
    reason, make = BROKEN[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage) as caught:
            decode_image(make(3))
    assert caught.value.reason == reason
    assert str(caught.value).startswith("an image must ")
    assert isinstance(caught.value, DataError)
    copy = pickle.loads(pickle.dumps(caught.value))  # it must travel between processes
    assert (copy.reason, str(copy)) == (reason, str(caught.value))


def test_size_is_judged_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("decoded")

    photo = jpg(1, height=40, width=40)
    monkeypatch.setattr(Image.Image, "load", never)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)
    for data in (bomb_png(), photo):
        with pytest.raises(BadImage) as caught:
            decode_image(data, max_pixels=1000)
        assert caught.value.reason == "too_many_pixels"
    with pytest.raises(BadImage) as caught:
        decode_image(photo, max_bytes=10)
    assert caught.value.reason == "too_many_bytes"
    with pytest.raises(BadImage) as caught:
        decode_image(SVG)
    assert caught.value.reason == "is_svg"


def test_a_bomb_that_only_makes_pillow_warn_is_refused_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage, match="decompression bomb"):
            decode_image(bomb_png(10_000))  # 100 Mpx: Pillow warns from 89


def test_stray_bytes_after_a_jpeg_are_forgiven() -> None:
    data = jpg(1)
    assert torch.equal(decode_image(data + b"\0" * 50), decode_image(data))


def test_scaled_decoding_keeps_what_is_asked_for() -> None:
    data = encode(np.asarray(Image.fromarray(pixels(1)).resize((640, 480), Image.Resampling.BICUBIC)), "JPEG")
    small = decode_image(data, at_least=100)
    assert small.shape[1] < 480
    assert min(small.shape[1:]) >= 100
    assert decode_image(data).shape == (3, 480, 640)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(50, 70), (301, 200), (224, 225), (32, 90), (33, 33), (20, 11)])
def test_resize_equals_pillow(interpolation: str, size: tuple[int, int]) -> None:
    array = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image, tensor = Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1)
    kind = Image.Resampling[interpolation.upper()]
    side = 32

    def ours(rule: str) -> np.ndarray:
        return rows(
            resize_image(tensor, ImageFormat(resolution=side, resize=rule, interpolation=interpolation, fill=(1, 2, 3)))
        )

    # torch rounds its fixed-point weights as Pillow does, but not in every last bit
    assert far(ours("crop"), plain.crop(image, side, kind)) <= 1
    assert far(ours("squash"), plain.squash(image, side, kind)) <= 1
    assert far(ours("pad"), plain.pad(image, side, kind, (1, 2, 3))) <= 1


def test_resize_equals_torchvision() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    for size in ((50, 71), (91, 64), (65, 64), (67, 64)):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
        chain = transforms.Compose(
            [transforms.Resize(32, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(32)]
        )
        got = resize_image(decode_image(encode(image)), ImageFormat(resolution=32))
        assert far(rows(got), np.asarray(chain(image))) <= 1


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = decode_image(png(1, height=32, width=32))
    for rule in ("crop", "squash", "pad"):
        assert resize_image(image, ImageFormat(resolution=32, resize=rule)) is image


def test_a_thread_of_pixels_does_not_eat_the_memory() -> None:
    thread = torch.zeros(3, 1, 1_000_000, dtype=torch.uint8)
    assert resize_image(thread, ImageFormat(resolution=64)).shape == (3, 64, 64)
    assert resize_image(thread, ImageFormat(resolution=64, resize="pad")).shape == (3, 64, 64)


def test_long_side_only_shrinks() -> None:
    image = decode_image(png(1, height=24, width=33))
    assert decode.resize_long_side(image, 33) is image
    assert decode.resize_long_side(image, 16).shape == (3, 12, 16)
    assert decode.resize_long_side(image.transpose(1, 2), 11).shape == (3, 11, 8)
    assert decode.resize_long_side(torch.zeros(3, 1, 500, dtype=torch.uint8), 10).shape == (3, 1, 10)


def test_encoders_come_back() -> None:
    image = decode_image(png(1))
    assert torch.equal(decode_image(encode_png(image)), image)
    assert torch.equal(decode_image(encode_webp(image, lossless=True)), image)
    assert encode_webp(image, quality=50)[8:12] == b"WEBP"
    assert encode_jpeg(image) == encode_jpeg(image.clone())
    assert far(rows(decode_image(encode_jpeg(image, 98, "444"))), pixels(1)) <= 12
    assert probe(encode_jpeg(image)).format == "jpg"


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:.*EXIF", "ignore:Metadata")
@pytest.mark.parametrize("seed", range(60))
def test_noise_in_a_file_never_raises_anything_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray([jpg(1), png(1), encode(pixels(1), "WEBP"), animated("GIF"), encode(pixels(1), "TIFF")][seed % 5])
    for _ in range(rng.integers(1, 20)):
        data[rng.integers(4, len(data))] = rng.integers(0, 256)
    data = data[: rng.integers(4, len(data) + 1)] if seed % 2 else data
    with contextlib.suppress(BadImage):
        image = decode_image(bytes(data), max_pixels=10**6)
        assert image.shape[1] * image.shape[2] <= 10**6
