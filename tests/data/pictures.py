"""Small encoded images for the tests: good ones in every odd form, and broken ones with the reason they must get."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image


def pixels(seed: int = 0, height: int = 24, width: int = 32) -> np.ndarray:
    """(h, w, 3) uint8 of blocks, so that JPEG hardly changes them."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((8, 8, 1), np.uint8))[:height, :width]


def encode(array: Any, format: str = "PNG", **options: Any) -> bytes:
    """An array or a PIL image as bytes."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(seed: int = 0, **size: int) -> bytes:
    return encode(pixels(seed, **size), "PNG")


def jpg(seed: int = 0, **size: int) -> bytes:
    return encode(pixels(seed, **size), "JPEG", quality=95)


def animated(format: str, frames: int = 3) -> bytes:
    images = [Image.fromarray(pixels(s)) for s in range(frames)]
    return encode(
        images[0], format, save_all=True, append_images=images[1:], **({"lossless": True} if format == "WEBP" else {})
    )


def bomb_png(side: int = 20_000) -> bytes:
    """A PNG of `side` squared black pixels, deflated row by row: tiny as a file, huge as pixels."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\0" * (side // 8)
    data = b"".join(packer.compress(row) for _ in range(50)) + packer.flush()  # only the header must ever be read
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        + _chunk(b"IDAT", data)
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def corrupt_png(seed: int) -> bytes:
    data = bytearray(png(seed))
    at = data.index(b"IDAT") + 12
    data[at] ^= 0xFF
    return bytes(data)


def corrupt_jpg(seed: int) -> bytes:
    """A JPEG whose Huffman tables are gone, though it begins and ends well."""
    data = bytearray(jpg(seed))
    at = data.index(b"\xff\xc4")
    data[at + 4 : at + 20] = b"\xff" * 16
    return bytes(data)


SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><rect/></svg>'

BROKEN: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "empty": ("empty", lambda n: b""),
    "text": ("not_an_image", lambda n: b"this is no image %d" % n),
    "web page": ("not_an_image", lambda n: b"<!DOCTYPE html><html><body>404 %d</body></html>" % n),
    "svg": ("is_svg", lambda n: SVG + b" " * n),
    "truncated jpg": ("truncated", lambda n: jpg(n)[:-200]),
    "truncated png": ("truncated", lambda n: png(n)[: len(png(n)) // 2]),
    "truncated webp": ("truncated", lambda n: encode(pixels(n), "WEBP")[:-40]),
    "corrupt png": ("corrupt", corrupt_png),
    "corrupt jpg": ("corrupt", corrupt_jpg),
    "bomb": ("too_many_pixels", lambda n: bomb_png(20_000 + 8 * n)),
    "avif": ("unsupported_format", lambda n: b"\0\0\0\x20ftypavif" + bytes([n % 256]) * 64),
    "thread": ("too_narrow", lambda n: png(n, height=4, width=200)),
    "header only": ("truncated", lambda n: jpg(n)[:24]),
}
"""name -> (the reason that it must be rejected for, a maker of one)."""
