"""Images that are too small, too large or too narrow."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray
from pydantic import Field

from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig


class ImageSizeConfig(FilterConfig):
    """Limits of the first image's size in pixels, both ends included; 0: none.

    min_side, max_side of the shorter and of the longer side; max_aspect: longer over shorter side. `of`: "original" is
    the size before it was made smaller, where the record says so (original_width and original_height in its meta, as
    img2dataset writes them), else as it was packed; "packed" is always the latter.
    """

    min_side: int = Field(default=0, ge=0)
    max_side: int = Field(default=0, ge=0)
    max_aspect: float = Field(default=0.0, ge=0)
    of: Literal["original", "packed"] = "original"

    def build(self) -> "ImageSize":
        """The filter."""
        return ImageSize(self)


class ImageSize(Filter):
    """Reasons: no_image, small_image, large_image, narrow_image."""

    def __init__(self, config: ImageSizeConfig) -> None:
        self.config = config

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """The first limit that an image does not keep."""
        c = self.config
        widths, heights = (rows.widths, rows.heights) if c.of == "packed" else _original(rows, alive)
        short, long = np.minimum(widths, heights), np.maximum(widths, heights)
        found = np.full(len(rows), "", dtype=object)
        if c.max_aspect:
            found[long > c.max_aspect * short] = "narrow_image"
        if c.max_side:
            found[long > c.max_side] = "large_image"
        found[short < c.min_side] = "small_image"
        found[short == 0] = "no_image"
        return list(found)


def _original(rows: Rows, alive: Bool[ndarray, " n"]) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]]:
    """Widths and heights as they once were; of records that are dropped already as they are."""
    widths, heights = rows.widths.copy(), rows.heights.copy()
    for i in np.flatnonzero(alive & (widths > 0)).tolist():
        meta = rows.meta(i)
        width, height = _pixels(meta.get("original_width")), _pixels(meta.get("original_height"))
        if width and height:
            widths[i], heights[i] = width, height
    return widths, heights


def _pixels(value: Any) -> int:
    """A whole number of pixels of a meta, which may hold anything; 0 if it is none."""
    whole = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**31 and value == int(value)
    return int(value) if whole else 0
