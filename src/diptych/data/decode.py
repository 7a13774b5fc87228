"""Encoded bytes of an image to uint8 pixels and back: the one decoder of the house, for packing, training and serving.

Nothing is decoded before its size, format and pixel count are known. Every refusal is a `BadImage` with a short
`reason` for tables and a sentence for people. What arrives in an odd form is handled on purpose:

  animated            the first frame
  alpha, palette      laid over white; a palette's transparent colour too
  16-bit              scaled to 8 (never clipped); 32-bit integers and floats as `_scaled` says
  CMYK, YCCK          converted as Pillow does (Adobe's inversion undone), without colour profiles
  EXIF orientation    turned upright, whichever decoder ran
"""

import io
from typing import Literal

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from diptych.core.image_format import ImageFormat
from diptych.data.image_header import (
    READ_FORMATS,
    STORED_FORMATS,
    BadImage,
    ImageHeader,
    announced_size,
    broken,
    check_pixels,
    jpeg_header,
    known_format,
    sniff,
)

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "READ_FORMATS",
    "STORED_FORMATS",
    "BadImage",
    "ImageHeader",
    "check_pixels",
    "decode_image",
    "eighths_for",
    "encode_bmp",
    "encode_jpeg",
    "encode_png",
    "encode_webp",
    "probe",
    "resize_image",
    "resize_long_side",
    "scale_image",
    "sniff",
]

MAX_PIXELS = 50_000_000
MAX_BYTES = 64 << 20
MAX_ASPECT = 20.0

_PILLOW = {"jpg": ("JPEG", "MPO"), "png": ("PNG",), "webp": ("WEBP",), "gif": ("GIF",), "bmp": ("BMP",)}
_PILLOW["tiff"] = ("TIFF",)


def probe(data: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """The header of an image, without decoding its pixels. Raises BadImage."""
    name = known_format(data, max_bytes)
    header = jpeg_header(data) if name == "jpg" else _pillow_header(_open(data, name, max_pixels), name)
    check_pixels(header.width, header.height, max_pixels)
    return header


def decode_image(
    data: bytes, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, at_least: int = 0, eighths: int = 8
) -> UInt8[Tensor, "3 h w"]:
    """The pixels of an encoded image, RGB, upright. Raises BadImage.

    `at_least` > 0 lets a JPEG be decoded at a smaller scale (inside the inverse DCT) whose sides are both still at
    least that long, `eighths` (8, 4, 2, 1) names the scale itself: five times faster on camera originals. Twice the
    final side costs about half a grey level.
    The tensor is a view of rows of RGB triples (channels last in memory), which torch's resize is fastest on.
    """
    name = known_format(data, max_bytes)
    if name == "jpg":
        header = jpeg_header(data)
        check_pixels(header.width, header.height, max_pixels)
        if header.mode in ("L", "RGB"):
            if at_least:
                eighths = eighths_for(min(header.height, header.width), at_least)
            pixels = _decode_jpeg(data, header, eighths)
            if pixels is not None:
                return _to_tensor(_turn(pixels, header.orientation))
    image = _open(data, name, max_pixels)
    header = _pillow_header(image, name)
    check_pixels(header.width, header.height, max_pixels)
    try:
        image.load()
        pixels = _to_rgb(image)
    except BadImage:
        raise
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        raise broken(data, name, error) from None
    # Pillow turns TIFFs by itself while loading them
    return _to_tensor(pixels if name == "tiff" else _turn(pixels, header.orientation))


def resize_image(image: UInt8[Tensor, "3 h w"], format: ImageFormat) -> UInt8[Tensor, "3 s s"]:
    """`image` at the side that a model wants, antialiased (the same values as Pillow's resize, to within a grey level).

    "crop" is CLIP's rule as torchvision has it: the short side becomes `resolution`, the long side int(resolution *
    long / short), and the crop starts at round((size - resolution) / 2), halves to the even number. "squash" scales
    both sides; "pad" makes the long side `resolution`, the short one round(...), and centres it on `fill`, the odd
    pixel to the right and below. An image that already has the size comes back as it is.
    """
    side = format.resolution
    if image.shape[1] == side and image.shape[2] == side:
        return image
    if format.resize == "squash":
        return scale_image(image, side, side, format.interpolation)
    if format.resize == "pad":
        image = scale_image(image, *_scaled_sides(image, side), format.interpolation)
        canvas = torch.tensor(format.fill, dtype=torch.uint8).view(3, 1, 1).repeat(1, side, side)
        top, left = (side - image.shape[1]) // 2, (side - image.shape[2]) // 2
        canvas[:, top : top + image.shape[1], left : left + image.shape[2]] = image
        return canvas
    image = _within_aspect(image)
    height, width = image.shape[1:]
    if height <= width:
        new_height, new_width = side, int(side * width / height)
    else:
        new_height, new_width = int(side * height / width), side
    image = scale_image(image, new_height, new_width, format.interpolation)
    top, left = round((new_height - side) / 2), round((new_width - side) / 2)
    return image[:, top : top + side, left : left + side]


def scale_image(
    image: UInt8[Tensor, "3 _ _"], height: int, width: int, mode: Literal["bicubic", "bilinear"]
) -> UInt8[Tensor, "3 {height} {width}"]:
    """`image` at another size, antialiased; as it is, if it has that size."""
    if image.shape[1:] == (height, width):
        return image
    images = image.unsqueeze(0)
    if not image.is_contiguous():  # a crop of such rows: copied by us, faster than by the resize itself
        images = images.contiguous(memory_format=torch.channels_last)
    return F.interpolate(images, (height, width), mode=mode, antialias=True, align_corners=False)[0]


def resize_long_side(image: UInt8[Tensor, "3 h w"], side: int) -> UInt8[Tensor, "3 h2 w2"]:
    """`image` shrunk (bicubic, antialiased) so that its long side is `side`; a smaller one comes back as it is."""
    if max(image.shape[1:]) <= side:
        return image
    return scale_image(image, *_scaled_sides(image, side), "bicubic")


def encode_jpeg(image: UInt8[Tensor, "3 h w"], quality: int = 92, subsampling: str = "420") -> bytes:
    """JPEG bytes; the same pixels give the same bytes."""
    rows = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return bytes(simplejpeg.encode_jpeg(rows, quality=quality, colorsubsampling=subsampling))


def encode_png(image: UInt8[Tensor, "3 h w"]) -> bytes:
    """PNG bytes, without loss."""
    return _encode(image, "PNG")


def encode_bmp(image: UInt8[Tensor, "3 h w"]) -> bytes:
    """BMP bytes: without loss and nearly without work, for what is decoded again soon."""
    return _encode(image, "BMP")


def encode_webp(image: UInt8[Tensor, "3 h w"], quality: int = 90, lossless: bool = False) -> bytes:
    """WebP bytes."""
    return _encode(image, "WEBP", quality=quality, lossless=lossless)


def _encode(image: Tensor, format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(buffer, format=format, **options)
    return buffer.getvalue()


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    size = announced_size(data, name)
    if size is not None:  # before Pillow: it only warns of bombs from 89 to 179 Mpx
        check_pixels(*size, max_pixels)
    try:
        return Image.open(io.BytesIO(data), formats=_PILLOW[name])
    except Image.DecompressionBombError as error:
        raise BadImage("too_many_pixels", f"an image must not be a decompression bomb; got one ({error}).") from None
    except Exception as error:
        raise broken(data, name, error) from None


def _pillow_header(image: Image.Image, name: str) -> ImageHeader:
    try:
        frames = int(getattr(image, "n_frames", 1)) if name != "jpg" else 1
    except Exception:  # a damaged tail; the first frame may still be whole
        frames = 1
    try:
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:  # EXIF is decoration: a damaged one must not cost the image
        orientation = 1
    orientation = orientation if 1 <= orientation <= 8 else 1
    turned = orientation >= 5 and name != "tiff"  # Pillow gives a TIFF's size upright already
    width, height = image.size[::-1] if turned else image.size
    return ImageHeader(name, width, height, frames, image.mode, orientation)


def eighths_for(side: int, at_least: int) -> int:
    """The smallest scale, in eighths, at which a JPEG's `side` is still `at_least` long.

    1, 2, 4 or 8: libjpeg-turbo's transforms of 5, 6 and 7 eighths take twice the time of the whole size, and that of 3
    the time of 4.
    """
    return next((n for n in (1, 2, 4) if side * n >= 8 * at_least), 8)


def _decode_jpeg(data: bytes, header: ImageHeader, eighths: int) -> np.ndarray | None:
    """Pixels by libjpeg-turbo, or None where it objects: Pillow then judges, which forgives stray bytes but no cut."""
    least = (0, 0)
    if eighths < 8:  # simplejpeg takes the smallest scale that reaches these, which is this one
        turned = header.orientation >= 5
        raw = (header.width, header.height) if turned else (header.height, header.width)
        least = (-(-raw[0] * eighths // 8), -(-raw[1] * eighths // 8))
    try:
        return simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])
    except ValueError:
        return None


def _to_rgb(image: Image.Image) -> np.ndarray:
    """(h, w, 3) uint8 of a loaded first frame."""
    mode = image.mode
    if mode in ("RGB", "L", "1") and "transparency" not in image.info:
        return np.array(image.convert("RGB"))
    if mode.startswith(("I", "F")):
        grey = _scaled(np.asarray(image), sixteen_bit=mode.startswith("I;16"))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if mode == "La":
            image = image.convert("LA")
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return np.array(Image.alpha_composite(white, picture).convert("RGB"))
    if mode in ("P", "CMYK", "YCbCr", "HSV", "RGBX"):
        return np.array(image.convert("RGB"))
    raise BadImage(
        "unsupported_mode", f"an image must be grey, RGB, CMYK or palette; got mode {mode}. Convert it to RGB."
    )


def _scaled(values: np.ndarray, sixteen_bit: bool) -> np.ndarray:
    """Wide grey values as uint8.

    16-bit by 255 / 65535. 32-bit integers and floats do not say their range: values within 0..1 (floats) are scaled
    by 255, within 0..255 taken as they are, within 0..65535 (integers) as 16-bit, and anything else is stretched from
    its lowest to its highest value.
    """
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise BadImage("not_finite_pixels", "an image must have finite pixels; got infinities or NaN. Clean it first.")
    low, high = float(wide.min()), float(wide.max())
    if sixteen_bit:
        wide = wide / 257
    elif values.dtype.kind == "f" and low >= 0 and high <= 1:
        wide = wide * 255
    elif low >= 0 and high <= 255:
        pass
    elif values.dtype.kind != "f" and low >= 0 and high <= 65535:
        wide = wide / 257
    else:
        wide = (wide - low) * (255 / (high - low)) if high > low else np.full_like(wide, 127)
    return np.rint(wide).astype(np.uint8)


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(h, w, 3) as the EXIF orientation says it should stand (Exif 2.3, table 4: what row 0 and column 0 are)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def _scaled_sides(image: Tensor, long_side: int) -> tuple[int, int]:
    scale = long_side / max(image.shape[1:])
    return max(1, round(image.shape[1] * scale)), max(1, round(image.shape[2] * scale))


def _within_aspect(image: Tensor) -> Tensor:
    """The centre of an image at most MAX_ASPECT times as long as wide: a thread of pixels must not eat the memory."""
    height, width = image.shape[1:]
    limit = int(min(height, width) * MAX_ASPECT)
    top, left = max(0, (height - limit) // 2), max(0, (width - limit) // 2)
    return image[:, top : top + min(height, limit), left : left + min(width, limit)]
