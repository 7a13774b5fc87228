"""A picture saved anew, as copies of it lie about: compressed harder, made smaller, cropped a little, of other colours.

Each copy is altered in one of these ways, so that what a filter finds can be told by way.
"""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from diptych.core.seeds import numpy_generator
from diptych.data.decode import decode_image, encode_jpeg, encode_png, scale_image

WAYS = ("compressed", "smaller", "cropped", "recoloured")
LEAST_SIDE = 8
"""Pixels below which no copy is made smaller or cropped."""


def saved_anew(data: bytes, *key: int | str) -> tuple[bytes, str, str]:
    """Another file of the same picture, its format, and the way it was made: a pure function of `data` and `key`.

    compressed  JPEG of a quality between 30 and 75
    smaller     both sides times 0.4 to 0.8, as PNG
    cropped     each side cut to 92 to 98 %, at any place, as PNG
    recoloured  brightness times 0.8 to 1.2, each channel times 0.95 to 1.05 more, as PNG

    A picture that a way leaves as it is, being too small or white all over, is compressed instead.
    """
    draw, pixels = numpy_generator("saved_anew", *key), decode_image(data)
    way = WAYS[int(draw.integers(len(WAYS)))]
    if way != "compressed":
        made = {"smaller": _smaller, "cropped": _cropped, "recoloured": _recoloured}[way](pixels, draw)
        if made.shape != pixels.shape or not torch.equal(made, pixels):
            return encode_png(made), "png", way
    quality = int(draw.integers(30, 76))
    found = encode_jpeg(pixels, quality)
    return (found if found != data else encode_jpeg(pixels, quality - 1)), "jpg", "compressed"


def _smaller(pixels: UInt8[Tensor, "3 h w"], draw: np.random.Generator) -> UInt8[Tensor, "3 h2 w2"]:
    factor = draw.uniform(0.4, 0.8)
    height, width = (min(side, max(LEAST_SIDE, round(side * factor))) for side in pixels.shape[1:])
    return scale_image(pixels, height, width, "bicubic")


def _cropped(pixels: UInt8[Tensor, "3 h w"], draw: np.random.Generator) -> UInt8[Tensor, "3 h2 w2"]:
    parts = []
    for side in pixels.shape[1:]:
        kept = min(side, max(LEAST_SIDE, round(side * draw.uniform(0.92, 0.98))))
        start = int(draw.integers(side - kept + 1))
        parts.append(slice(start, start + kept))
    return pixels[:, parts[0], parts[1]]


def _recoloured(pixels: UInt8[Tensor, "3 h w"], draw: np.random.Generator) -> UInt8[Tensor, "3 h w"]:
    gains = torch.from_numpy(draw.uniform(0.8, 1.2) * draw.uniform(0.95, 1.05, 3)).float()[:, None, None]
    return (pixels.float() * gains).round().clamp(0, 255).to(torch.uint8)
