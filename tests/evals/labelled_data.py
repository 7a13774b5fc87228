"""A packed dataset of labelled pictures with a split to learn from, for evals that learn a probe."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

from diptych.core.record import Record
from diptych.data.dataset import Dataset, Split
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from tests.evals import fakes

TRAIN_FROM = 20_000
"""Pictures to learn from have these numbers, which no judged picture has."""


@functools.lru_cache
def labelled_data(judged: int, train: int = 200, classes: int = 10) -> Dataset:
    """`train` pictures to learn from and `judged` to judge (the split val), in turn of each class."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, True)
    records = [
        *(_record(f"train {i}", TRAIN_FROM + i, i % classes, "train") for i in range(train)),
        *(_record(f"test {i}", i, i % classes, "val") for i in range(judged)),
    ]
    pack(FromRecords(lambda: records), folder, PackConfig(tokenizer="none", jobs=1, val=0.0))
    return Dataset.open(folder)


class Parts:
    """As much of a dataset as evals ask for, of splits in memory, which may hold what packing would leave out."""

    def __init__(self, **numbers: range) -> None:
        self.splits = {name: _pictures(name, found) for name, found in numbers.items()}

    def split(self, name: str) -> fakes.FakeSplit:
        return self.splits[name]


def _pictures(name: str, numbers: range, classes: int = 10) -> fakes.FakeSplit:
    labels = [i % classes for i in numbers]
    split = fakes.FakeSplit(
        [fakes.picture(i, label) for i, label in zip(numbers, labels, strict=True)],
        [(f"thing {i}",) for i in numbers],
        [{"label": f"kind_{label}", "class_index": label} for label in labels],
    )
    split.name = name
    return split


def judged_split(judged: int, **how: Any) -> Split:
    """The split that is judged."""
    return labelled_data(judged, **how).split("val")


def _record(key: str, number: int, label: int, split: str) -> Record:
    meta = {"split": split, "label": f"kind_{label}", "class_index": label}
    return Record.pair(key, fakes.picture(number, label), "png", (f"thing {number}",), meta=meta)
