"""Packed data whose held-out images are, or are not, copies of training images; and a model that sees pixels."""

import functools
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.decode import encode_jpeg, encode_png, scale_image
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from tests.evals import fakes


def scene(number: int, side: int = 64) -> Tensor:
    """A smooth picture of many colours, (3, side, side), another for each number."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(number))
    smooth = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    return (smooth.clamp(0, 1)[0] * 255).round().byte()


def copied(number: int) -> bytes:
    """The scene of that number as a smaller JPEG."""
    return encode_jpeg(scale_image(scene(number), 44, 44, "bilinear"), quality=70)


def numbered(number: int) -> bytes:
    """A small noisy picture whose first pixel holds `number`, as the fakes read it."""
    image = torch.randint(0, 256, (3, fakes.SIDE, fakes.SIDE), generator=torch.Generator().manual_seed(number))
    image[:, 0, 0] = torch.tensor([number // 256, number % 256, 0])
    return encode_png(image.byte())


def write(train: list[tuple[bytes, str]], held: list[tuple[bytes, str]], folder: Path) -> Dataset:
    """A dataset of pictures with a caption each, in two splits."""
    records = [
        Record.pair(f"{split} {i}", data, "jpg" if data[:2] == b"\xff\xd8" else "png", (text,), meta={"split": split})
        for split, pairs in (("train", train), ("val", held))
        for i, (data, text) in enumerate(pairs)
    ]
    pack(FromRecords(lambda: records), folder, PackConfig(tokenizer="none", jobs=1, val=0.0))
    return Dataset.open(folder)


@functools.lru_cache
def leaky(copies: int, exact: int, held: int = 60, train: int = 60) -> Dataset:
    """Of `held` images the first `copies` are scenes of the training split saved anew, the next `exact` its bytes."""
    seen = [(encode_png(scene(i)), f"thing {i}") for i in range(train)]
    again = [(copied(i), f"Thing  {i}!") for i in range(copies)]
    same = [(seen[i][0], f"thing {1000 + i}") for i in range(copies, copies + exact)]
    new = [(encode_png(scene(i)), f"thing {i}") for i in range(train, train + held - copies - exact)]
    return write(seen, again + same + new, Path(tempfile.mkdtemp()) / "data")


@functools.lru_cache
def clean(n: int) -> Dataset:
    """Pictures whose numbers the fakes read; none is held out twice."""
    seen = [(numbered(10_000 + i), f"thing {10_000 + i}") for i in range(30)]
    return write(seen, [(numbered(i), f"thing {i}") for i in range(n)], Path(tempfile.mkdtemp()) / "data")


class Looks(fakes.Embeds):
    """Embeds images by some of their pixels, about their mean."""

    def embed_image(self, images: Tensor) -> Tensor:
        x = images.float().flatten(1)[:, ::6]
        return F.normalize(x - x.mean(1, keepdim=True), dim=1)
