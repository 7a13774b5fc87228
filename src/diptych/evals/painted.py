"""What a model paints for the captions of a split, beside the pictures that they are of."""

import base64
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from pydantic import Field
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.core.image_format import ImageFormat
from diptych.data.decode import encode_png
from diptych.data.image_reader import ImageReader
from diptych.evals.eval import EvalConfig
from diptych.evals.scoring import choose_places
from diptych.models.painting import Painting
from diptych.models.pretrained import Pretrained

SHOWN_SIDE = 128
"""Smaller pictures are enlarged for the report, each pixel to a square."""


class PaintedConfig(EvalConfig):
    """Base of the settings of evals that look at what a model paints."""

    abstract: ClassVar[bool] = True
    painting: Painting = Painting()
    """How is painted: painting.guidance=4 painting.steps=50 painting.seed=1. Each caption is painted once."""
    train_split: str = "train"
    """The split of the same data that the model has learned from."""
    max_train: int = Field(20_000, ge=1)
    """Compare with at most so many of its pictures, always the same ones."""
    batch_size: int = Field(32, ge=1)
    """Pictures that are painted at once; what is drawn for each does not depend on it."""
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(24, ge=0)
    """How many painted pictures go into the report."""


class Painted(NamedTuple):
    """Readable records with a caption (the first that each has): their places, the captions, the pictures that are
    there and those that were painted, all of one side. `clusters`: which captions are equal, whose pictures are one
    independent item: they are hard or easy together."""

    places: list[int]
    captions: list[str]
    real: UInt8[Tensor, "n 3 s s"]
    painted: UInt8[Tensor, "n 3 s s"]
    clusters: Int64[np.ndarray, " n"]


def paint_captions(
    model: Pretrained, reader: ImageReader, places: Sequence[int], config: PaintedConfig, who: str
) -> Painted:
    """Paint the first caption of every readable record at `places`. The n-th caption's draws are those of number n.

    Raises EvalError where there are not two different captions.
    """
    split = reader.split
    said = {p: texts[0] for p in places if (texts := split.captions(p))}
    kept, images = list[int](), list[Tensor]()
    for batch in reader.batches(list(said)):
        kept += batch.places
        images.append(batch.images)
    captions = [said[p] for p in kept]
    if len(set(captions)) < 2:
        raise EvalError(
            f"{who} must be given at least 2 readable records with different captions; got {len(set(captions))} of "
            f"{len(places)} in {split.name}. Choose a larger split, or one whose records have captions."
        )
    values = {name: getattr(config.painting, name) for name in Painting.model_fields}
    painted = of_side(model.paint(captions, config.batch_size, **values), reader.format.resolution)
    clusters = np.unique(np.array(captions), return_inverse=True)[1]
    return Painted(kept, captions, torch.cat(images), painted, clusters)


def whole_pictures(model: Pretrained, split: Any, batch_size: int) -> ImageReader:
    """A reader of pictures of the side that `model` has to do with, nothing being cut off: as captions say them."""
    side = model.model.config.image_format.resolution
    return ImageReader(split, ImageFormat(resolution=side, resize="squash"), batch_size)


def choose_captioned(split: Any, most: int) -> list[int]:
    """At most `most` places (0: all) of records with captions, the same ones each time."""
    return [p for p in choose_places(split, most) if split.captions(p)]


def of_side(images: UInt8[Tensor, "n 3 _ _"], side: int) -> UInt8[Tensor, "n 3 {side} {side}"]:
    """Pictures at another side, antialiased; as they are, if they have it."""
    if images.shape[2:] == (side, side):
        return images
    scaled = F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def encoded(image: UInt8[Tensor, "3 h w"]) -> str:
    """A picture for the report: a PNG in base64, enlarged where it is small."""
    times = max(1, SHOWN_SIDE // min(image.shape[1:]))
    large = image.repeat_interleave(times, 1).repeat_interleave(times, 2)
    return base64.b64encode(encode_png(large)).decode()
