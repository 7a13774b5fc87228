"""A small packed dataset of the coloured pictures of tests/evals/fakes.py."""

from pathlib import Path

from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from tests.evals import fakes


def write(folder: Path, count: int = 30) -> Dataset:
    """`count` records "item <i>" captioned "thing <i>", each third in the split val."""
    records = [
        Record.pair(f"item {i}", fakes.picture(i), "png", (f"thing {i}",), meta={"split": "train" if i % 3 else "val"})
        for i in range(count)
    ]
    config = PackConfig(tokenizer="none", jobs=1, val=0.0, records_per_shard=8)
    pack(FromRecords(lambda: records), folder, config)
    return Dataset.open(folder)
