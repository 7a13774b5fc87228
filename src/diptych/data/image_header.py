"""What the first bytes of an image say, and what is wrong with it: nothing here decodes a pixel."""

import struct
import zlib
from dataclasses import dataclass

from diptych.core.errors import DataError

STORED_FORMATS = ("jpg", "png", "webp")
"""What a dataset folder may hold; `READ_FORMATS` can be read at the source and are re-encoded when packed."""
READ_FORMATS = (*STORED_FORMATS, "gif", "bmp", "tiff")


class BadImage(DataError):
    """An image that is refused. `reason` is one of a few short words, the message a sentence with what to do.

    Reasons: empty, too_many_bytes, is_svg, not_an_image, unsupported_format, unsupported_mode, no_pixels,
    too_many_pixels, truncated, corrupt, not_finite_pixels.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both in args, so that it can be pickled between processes
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the first bytes of an image say: upright width and height in pixels, frames, Pillow's word for its mode."""

    format: str
    width: int
    height: int
    frames: int
    mode: str
    orientation: int = 1


def sniff(data: bytes) -> str | None:
    """The format that the first bytes announce ("jpg", "png", "webp", "gif", "bmp", "tiff", "svg", "avif"), or None."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:2] == b"BM" and len(data) >= 26:
        return "bmp"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    if data[4:8] == b"ftyp":
        return "avif"
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"<svg") or (head.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in data[:65536]):
        return "svg"
    return None


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise BadImage if an image has no pixels or more than `max_pixels`."""
    if width < 1 or height < 1:
        raise BadImage("no_pixels", f"an image must have pixels; got {width} x {height}. Export it again.")
    if width * height > max_pixels:
        raise BadImage(
            "too_many_pixels",
            f"an image must have at most {max_pixels:,} pixels; got {width:,} x {height:,}. "
            "If it is not a decompression bomb, shrink it or raise max_pixels.",
        )


def announced_size(data: bytes, name: str) -> tuple[int, int] | None:
    """(width, height) where the first bytes of a png, webp, gif or bmp say it, before any library has seen the file."""
    if name == "png" and data[12:16] == b"IHDR" and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if name == "gif" and len(data) >= 10:
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if name == "bmp":
        if int.from_bytes(data[14:18], "little") == 12:  # OS/2
            return int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")
        return int.from_bytes(data[18:22], "little"), abs(int.from_bytes(data[22:26], "little", signed=True))
    if name == "webp" and len(data) >= 30:  # RFC 9649: the extended, lossy and lossless headers
        if data[12:16] == b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        if data[12:16] == b"VP8 ":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
        if data[12:16] == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def known_format(data: bytes, max_bytes: int) -> str:
    """The format that the first bytes announce. Raises BadImage for what is empty, too large or of no known format."""
    if not data:
        raise BadImage("empty", "an image must have bytes; got none. Its file is empty: copy or download it again.")
    if len(data) > max_bytes:
        raise BadImage(
            "too_many_bytes",
            f"an image must have at most {max_bytes:,} bytes; got {len(data):,}. Shrink it or raise max_bytes.",
        )
    name = sniff(data)
    if name in READ_FORMATS:
        return name
    if name == "svg":
        raise BadImage("is_svg", "an image must be made of pixels; got an SVG drawing. Render it to PNG first (resvg).")
    if name is not None:
        raise BadImage(
            "unsupported_format", f"an image must be one of {', '.join(READ_FORMATS)}; got {name}. Convert it to PNG."
        )
    what = "a web page" if data[:256].lstrip().lower().startswith((b"<!doctype html", b"<html")) else repr(data[:8])
    raise BadImage(
        "not_an_image", f"an image must begin like one of {', '.join(READ_FORMATS)}; got {what}. Remove or replace it."
    )


def broken(data: bytes, name: str, error: Exception) -> BadImage:
    """A failed decode, told apart: was the file cut off, or is it damaged inside?"""
    words = str(error).strip().rstrip(".") or type(error).__name__
    cut = (
        isinstance(error, EOFError)
        or "truncated" in words.lower()
        or (name == "jpg" and b"\xff\xd9" not in data[-1024:])
        or (name == "png" and b"IEND" not in data[-64:])
        or (name == "webp" and len(data) < 8 + int.from_bytes(data[4:8], "little"))
    )
    if cut:
        return BadImage(
            "truncated", f"an image must be whole; got {len(data):,} bytes of a {name} that ends too early."
        )
    return BadImage("corrupt", f"an image must be decodable; got a damaged {name} ({words}). Copy or export it again.")


def jpeg_header(data: bytes) -> ImageHeader:
    """Size, components and EXIF orientation out of a JPEG's markers (ITU T.81, B.2; Exif 2.3, 4.5.4)."""
    place, orientation, size = 2, 1, len(data)
    while place + 4 <= size:
        if data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            place += 1
            continue
        if marker in (0x01, *range(0xD0, 0xD9)):  # markers without a length
            place += 2
            continue
        if marker in (0xD9, 0xDA):
            break
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[place + 10 : place + 2 + length]) or orientation
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and place + 10 <= size:
            height, width, components = struct.unpack(">HHB", data[place + 5 : place + 10])
            mode = {1: "L", 3: "RGB", 4: "CMYK"}.get(components, f"{components} components")
            if orientation >= 5:
                width, height = height, width
            return ImageHeader("jpg", width, height, 1, mode, orientation)
        place += 2 + max(length, 2)
    raise broken(data, "jpg", ValueError("no frame header"))


def _exif_orientation(tiff: bytes) -> int | None:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return None
    (start,) = struct.unpack(order + "I", tiff[4:8])
    if start + 2 > len(tiff):
        return None
    (count,) = struct.unpack(order + "H", tiff[start : start + 2])
    for n in range(count):
        entry = tiff[start + 2 + 12 * n : start + 14 + 12 * n]
        if len(entry) == 12 and struct.unpack(order + "H", entry[:2])[0] == 0x0112:
            value = struct.unpack(order + "H", entry[8:10])[0]
            return value if 1 <= value <= 8 else None
    return None


def check_png(data: bytes) -> None:
    """Raise BadImage unless the chunks of a PNG that pixels depend on carry their right checksums, to the end.

    Pillow does not look at those of the pixels, and shows a damaged picture. Packing does; training need not again.
    """
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, end = data[place + 4 : place + 8], place + 8 + length
        if end + 4 > len(data):
            break
        critical = not kind[0] & 0x20  # upper case: PNG, third edition, 5.4
        if critical and zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise broken(data, "png", ValueError(f"a wrong checksum in {kind.decode(errors='replace')}"))
        if kind == b"IEND":
            return
        place = end + 4
    raise broken(data, "png", EOFError())
