"""Images that are too small, too large or too narrow."""

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig


class ImageSizeConfig(FilterConfig):
    """Limits of the first image's size in pixels as it was packed, both ends included; 0: none.

    min_side, max_side of the shorter and of the longer side; max_aspect: longer over shorter side.
    """

    min_side: int = Field(default=0, ge=0)
    max_side: int = Field(default=0, ge=0)
    max_aspect: float = Field(default=0.0, ge=0)

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
        short, long = np.minimum(rows.widths, rows.heights), np.maximum(rows.widths, rows.heights)
        found = np.full(len(rows), "", dtype=object)
        if c.max_aspect:
            found[long > c.max_aspect * short] = "narrow_image"
        if c.max_side:
            found[long > c.max_side] = "large_image"
        found[short < c.min_side] = "small_image"
        found[short == 0] = "no_image"
        return list(found)
