"""Images that show nothing well: blurred, dark, light, or nearly empty, as cleanvision 0.3.7 measures them.

All four are scores from 0 (bad) to 1:

  blurry           1 - exp(-s / 100) of s, the standard deviation of the Laplacian of the grey image shrunk to 64
                   pixels; plus 1 - exp(-d / 100) of d, that of the counts of its histogram, where this exceeds 0.18,
                   so that drawings with few colours are not taken for blurred
  dark             the brightness that 1 % of the pixels exceed
  light            1 minus the brightness that 5 % of the pixels are below
  low_information  a tenth of the entropy, in bits, of the red, green and blue values taken together

Brightness of a pixel is sqrt(0.241 r^2 + 0.691 g^2 + 0.068 b^2) / 255 (HSP's).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image
from pydantic import Field

from diptych.core.errors import DataError
from diptych.data.candidates import Rows
from diptych.data.decode import BadImage, decode_image
from diptych.data.filters.filter import Filter, FilterConfig

SMALL = 64
"""The longer side at which blur is measured, in pixels."""
COLOURS = 0.18
"""What the histogram must exceed to count."""


class SharpnessConfig(FilterConfig):
    """The lowest score of each that stays, cleanvision's by default; 0: it does not count.

    Drawings and charts have little entropy: lower `low_information` to 0.17 for them, or set it to 0. An image of one
    colour has 0.158, no image has less. Thin drawings on white count as light.

    at_least  lets a JPEG be decoded at a smaller scale whose sides are both still at least that long, in pixels: much
              faster, and entropy and brightness change in the third digit; 0: decoded whole
    """

    blurry: float = Field(default=0.29, ge=0, le=1)
    dark: float = Field(default=0.32, ge=0, le=1)
    light: float = Field(default=0.05, ge=0, le=1)
    low_information: float = Field(default=0.3, ge=0, le=1)
    at_least: int = Field(default=256, ge=0)

    def build(self) -> "Sharpness":
        """The filter."""
        return Sharpness(self)


class Clarity(NamedTuple):
    """The four scores of an image, each from 0 to 1."""

    blurry: float
    dark: float
    light: float
    low_information: float


class Sharpness(Filter):
    """Reasons: blank (a single colour), low_information, dark, light, blurry; no_image; undecodable."""

    def __init__(self, config: SharpnessConfig) -> None:
        self.config = config

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """The first limit that an image does not keep; only those that are left are decoded."""
        widths = rows.widths
        return ["" if not a else self._of(rows, i) if widths[i] else "no_image" for i, a in enumerate(alive.tolist())]

    def _of(self, rows: Rows, i: int) -> str:
        try:
            pixels = decode_image(rows.image(i), at_least=self.config.at_least).permute(1, 2, 0).numpy()
        except (BadImage, DataError):
            return "undecodable"
        if (pixels == pixels[0, 0]).all():
            return "blank"
        found, c = clarity(pixels), self.config
        for reason in ("low_information", "dark", "light", "blurry"):
            if getattr(found, reason) < getattr(c, reason):
                return reason
        return ""


def clarity(pixels: UInt8[ndarray, "h w 3"]) -> Clarity:
    """The scores of RGB pixels."""
    low, high = np.percentile(brightness(pixels), [5, 99])
    return Clarity(_blur_score(pixels), float(high), 1 - float(low), min(entropy(pixels) / 10, 1.0))


def brightness(pixels: UInt8[ndarray, "h w 3"]) -> Float[ndarray, "h w"]:
    """Of each pixel, from 0 to 1."""
    squares = np.arange(256, dtype=np.float64) ** 2
    red, green, blue = (squares[pixels[..., i]] for i in range(3))
    return np.sqrt(0.241 * red + 0.691 * green + 0.068 * blue) / 255


def entropy(pixels: UInt8[ndarray, "h w 3"]) -> float:
    """In bits, of the values of the three channels as 768 different signs."""
    counts = np.concatenate([np.bincount(pixels[..., i].reshape(-1), minlength=256) for i in range(3)])
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def laplacian(grey: UInt8[ndarray, "h w"]) -> UInt8[ndarray, "h w"]:
    """Eight times each pixel less its eight neighbours, cut to 0..255; the outermost pixels as they are."""
    wide, found = grey.astype(np.int32), grey.copy()
    if min(grey.shape) < 3:
        return found
    height, width = grey.shape
    around = sum(wide[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    found[1:-1, 1:-1] = np.clip(9 * wide[1:-1, 1:-1] - around, 0, 255)
    return found


def _blur_score(pixels: UInt8[ndarray, "h w 3"]) -> float:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    ratio = max(image.size) / SMALL
    if ratio > 1:
        image = image.resize((max(int(image.width // ratio), 1), max(int(image.height // ratio), 1)))
    grey = np.asarray(image.convert("L"))
    edges = 1 - np.exp(-laplacian(grey).std() / 100)
    colours = 1 - np.exp(-np.bincount(grey.reshape(-1), minlength=256).std() / 100)
    return float(min(edges + (colours if colours > COLOURS else 0), 1))
