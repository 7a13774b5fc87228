"""Where an image lies in the square that a model sees of it: the geometry of `resize_image`, for boxes and points."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from diptych.core.image_format import ImageFormat
from diptych.data.decode import MAX_ASPECT


class Frame(NamedTuple):
    """x' = left + x scale_x, y' = top + y scale_y: from an image of width x height pixels to a square of `side`.

    Coordinates are of edges: pixel i covers i to i + 1, as boxes of annotations are meant.
    """

    width: int
    height: int
    side: int
    scale_x: float
    scale_y: float
    left: float
    top: float

    @classmethod
    def of(cls, width: int, height: int, format: ImageFormat) -> "Frame":
        """Of an image of this size, resized as the format says, with the same roundings as `resize_image`."""
        side = format.resolution
        if (width, height) == (side, side) or format.resize == "squash":
            return cls(width, height, side, side / width, side / height, 0.0, 0.0)
        if format.resize == "pad":
            scale = side / max(width, height)
            w, h = max(1, round(width * scale)), max(1, round(height * scale))
            return cls(width, height, side, w / width, h / height, float((side - w) // 2), float((side - h) // 2))
        limit = int(min(width, height) * MAX_ASPECT)
        w, h = min(width, limit), min(height, limit)
        x, y = max(0, (width - limit) // 2), max(0, (height - limit) // 2)
        new_w, new_h = (int(side * w / h), side) if h <= w else (side, int(side * h / w))
        left, top = round((new_w - side) / 2), round((new_h - side) / 2)
        return cls(width, height, side, new_w / w, new_h / h, -left - x * new_w / w, -top - y * new_h / h)

    def to_square(self, boxes: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "k 4"]:
        """Boxes (left, top, right, bottom) of the image, in the square's pixels; parts outside are cut off."""
        scale = np.array([self.scale_x, self.scale_y] * 2)
        moved: Float[np.ndarray, "k 4"] = np.clip(
            boxes * scale + np.array([self.left, self.top] * 2), 0.0, float(self.side)
        )
        return moved

    def to_image(self, points: Shaped[np.ndarray, "*k 2"]) -> Float[np.ndarray, "*k 2"]:
        """Points (x, y) of the square, in the image's pixels."""
        return (points - np.array([self.left, self.top])) / np.array([self.scale_x, self.scale_y])

    def centres(self) -> Float[np.ndarray, "s s 2"]:
        """Where the centres of the square's pixels lie in the image."""
        y, x = np.mgrid[0 : self.side, 0 : self.side] + 0.5
        return self.to_image(np.stack([x, y], 2))

    def seen(self) -> tuple[int, int, int, int]:
        """The part of the square (left, top, right, bottom) that shows the image, without padding."""
        ends = np.clip(
            [self.left, self.top, self.left + self.width * self.scale_x, self.top + self.height * self.scale_y],
            0,
            self.side,
        )
        x0, y0, x1, y1 = (int(v) for v in np.rint(ends))
        return x0, y0, x1, y1
