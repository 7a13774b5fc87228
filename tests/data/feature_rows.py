"""Tables whose rows say which record and which of its views or captions they are of."""

import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np

from diptych.data.build_features import Chunk, Rows, feature_table
from diptych.data.dataset import Split
from diptych.data.features import FeatureTable, TableSpec

IMAGES = TableSpec("a" * 32, "image tower", "image", 4, copies=3, chunk=2)
TEXTS = TableSpec("b" * 32, "text tower", "text", 3, chunk=3)


def image_row(record: int, view: int) -> list[float]:
    """Four numbers."""
    return [float(record), float(view), 0.5, -record / 4]


def text_row(record: int, caption: int) -> list[float]:
    """Three numbers."""
    return [float(record), float(caption), 2.0]


def compute(
    spec: TableSpec, split: Split, seen: list[Chunk] | None = None, bad: dict[int, str] | None = None
) -> Callable[[Sequence[Chunk]], Generator[Rows, None, None]]:
    """What stands for a tower; `seen` notes what it was asked for."""

    def computed(chunks: Sequence[Chunk]) -> Generator[Rows, None, None]:
        for start, stop in chunks:
            if seen is not None:
                seen.append((start, stop))
            unreadable = {i: why for i, why in (bad or {}).items() if start <= i < stop}
            if spec.kind == "image":
                rows = [image_row(i, j) for i in range(start, stop) for j in range(spec.copies)]
                yield Rows(np.array(rows, np.float32), bad=unreadable)
            else:
                places = [(i, j) for i in range(start, stop) for j in range(len(split.captions(i)))]
                notes = np.array([(100 * i + j, j) for i, j in places], np.int64)
                yield Rows(np.array([text_row(i, j) for i, j in places], np.float32), notes, unreadable)

    return computed


def tiny_table(split: Split, spec: TableSpec, beside: Path | None = None) -> FeatureTable:
    """A whole table of `split`."""
    beside = beside or Path(tempfile.mkdtemp(dir=split.shards[0].parent))
    beside.mkdir(exist_ok=True)
    return feature_table(spec, split, beside, compute(spec, split))
