"""A split of a few small pictures with two captions each, written and opened by the real shard code."""

from pathlib import Path

import torch

from diptych.core.record import Record
from diptych.data.dataset import Split
from diptych.data.decode import encode_jpeg, encode_png
from diptych.data.shards import ShardWriter
from diptych.data.tokenize import Tokenizer


def picture(i: int, height: int = 12, width: int = 12) -> torch.Tensor:
    """Noise that is the same for the same `i`."""
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(i)).byte()


def write(folder: Path, count: int, sizes: tuple[tuple[int, int], ...] = ((12, 12),), jpeg: bool = False) -> Path:
    """The path of a tar of `count` pairs; sizes are (height, width), taken in turn."""
    writer = ShardWriter(folder)
    for i in range(count):
        image = picture(i, *sizes[i % len(sizes)])
        data, name = (encode_jpeg(image), "jpg") if jpeg else (encode_png(image), "png")
        writer.add(
            Record.pair(f"k{i}", data, name, (f"picture number {i}", f"never number {i}"), weights=(1.0, 0.0)),
            sizes=[(image.shape[2], image.shape[1])],
        )
    writer.close()
    return next(folder.glob("*.tar"))


def opened(folder: Path, count: int, **how: object) -> Split:
    """The split of `write`'s tar."""
    return Split("train", [write(folder, count, **how)])  # type: ignore[arg-type]


def tokenizer() -> Tokenizer:
    """Trained on what the pairs say."""
    return Tokenizer.train((f"picture number {i}" for i in range(50)), vocab_size=300, context_length=16)
