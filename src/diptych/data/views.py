"""From records to the pixels of a batch: each image decoded, cropped and resized by itself, straight into its row.

One image is in memory at full size at a time. Where decoding may be scaled, the crop is drawn from the size in the
file's header first, and the scale chosen so that this very crop still has twice the wanted side.
"""

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig, Box, crop_and_resize, resize_images, vary
from diptych.data.dataset import Split
from diptych.data.decode import decode_image, eighths_for, resize_image, sniff
from diptych.data.draws import Draws
from diptych.data.image_header import jpeg_header
from diptych.data.pixels import Pixels

_OVERSIZED = 2
"""How many times the wanted side is left by decoding at a smaller scale."""


class Views:
    """Opens batches of images. `pixels`: those already decoded; `scaled`: JPEGs may be decoded at a smaller scale."""

    def __init__(self, split: Split, pixels: Pixels | None, augmentation: AugmentConfig, scaled: bool) -> None:
        self.split, self.pixels, self.augmentation, self.scaled = split, pixels, augmentation, scaled

    def open(self, keys: list[int], image_format: ImageFormat) -> "ViewBatch":
        """A batch for the samples with `keys`, to be filled."""
        return ViewBatch(self, keys, image_format)


class ViewBatch:
    """The images of a batch, filled row by row."""

    def __init__(self, views: Views, keys: list[int], image_format: ImageFormat) -> None:
        self._views, self._keys, self._format = views, keys, image_format
        side, crops = image_format.resolution, views.augmentation.crop_scale is not None
        self._out = torch.empty((len(keys), 3, side, side), dtype=torch.uint8)
        self._crops = Draws(keys).uniform("crop", 40) if crops else None
        # of one size and in memory already: resized all at once, when it is known which they are
        self._at_once = views.pixels is not None and views.pixels.alike and not crops
        self._records = np.zeros(len(keys), dtype=np.int64)

    def add(self, row: int, record: int, number: int = 0) -> None:
        """Put the image of `record` into a row; of several, the one of that `number` (0 and others
        never share a batch). Raises DataError if it cannot be read, ShardError if its tar cannot."""
        views = self._views
        self._records[row] = record
        u = None if self._crops is None else self._crops[row]
        if views.pixels is None or number:  # only first images are kept in memory
            self._at_once = self._at_once and not number
            data = views.split.image_bytes(record, number) if number else views.split.image_bytes(record)
            fit = self._scaled if views.scaled and sniff(data) == "jpg" else self._whole
            self._out[row] = fit(data, u)
        elif self._at_once:
            views.pixels.check(record)
        else:
            self._out[row] = self._fitted(views.pixels[record], u)

    def finished(self) -> UInt8[Tensor, "b 3 s s"]:
        """The batch, with what else the augmentation does to it. Every row must have been added."""
        views = self._views
        if self._at_once and len(self._keys):
            assert views.pixels is not None
            resize_images(views.pixels.gather(self._records), self._format, self._out)
        return vary(self._out, self._keys, views.augmentation, self._format)

    def _whole(self, data: bytes, u: ndarray | None) -> UInt8[Tensor, "3 s s"]:
        return self._fitted(decode_image(data), u)

    def _fitted(self, image: UInt8[Tensor, "3 _ _"], u: ndarray | None) -> UInt8[Tensor, "3 s s"]:
        if u is None:
            return resize_image(image, self._format)
        box = self._views.augmentation.box(image.shape[1], image.shape[2], u)
        return crop_and_resize(image, box, self._format)

    def _scaled(self, data: bytes, u: ndarray | None) -> UInt8[Tensor, "3 s s"]:
        header = jpeg_header(data)
        least = _OVERSIZED * self._format.resolution
        if u is None:
            eighths = eighths_for(min(header.height, header.width), least)
            return resize_image(decode_image(data, eighths=eighths), self._format)
        box = self._views.augmentation.box(max(1, header.height), max(1, header.width), u)
        eighths = eighths_for(min(box[2:]), least)
        image = decode_image(data, eighths=eighths)
        if image.shape[1:] != (header.height, header.width):  # a JPEG that Pillow had to read comes whole
            box = scaled_box(box, eighths, image.shape[1], image.shape[2])
        return crop_and_resize(image, box, self._format)


def scaled_box(box: Box, eighths: int, height: int, width: int) -> Box:
    """`box` in an image that was decoded at a scale to `height` and `width`: its edges go to the nearest pixels."""
    top, left = min(_near(box[0], eighths), height - 1), min(_near(box[1], eighths), width - 1)
    bottom, right = _near(box[0] + box[2], eighths), _near(box[1] + box[3], eighths)
    return top, left, max(1, min(bottom, height) - top), max(1, min(right, width) - left)


def _near(place: int, eighths: int) -> int:
    return (place * eighths + 4) // 8
