"""A small clean dataset for tests of planted faults: pictures of blocks, a caption or two each."""

from pathlib import Path

from diptych.core.record import Record
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from tests.data.pictures import jpg, png

COLOURS = ("red", "green", "blue", "grey")
THINGS = ("square", "lamp", "wheel")


def clean_records(train: int = 100, test: int = 24) -> list[Record]:
    """Every third is a JPEG; every second says the same in two ways; rare words come three or four times."""
    found = []
    for i in range(train + test):
        picture = jpg(i, height=48, width=64) if i % 3 == 0 else png(i, height=48, width=64)
        said = (f"a {COLOURS[i % 4]} {THINGS[i % 3]} beside word{i % 31}", f"{THINGS[i % 3]} number{i}")
        meta = {"split": "train" if i < train else "test"}
        captions = said if i % 2 else said[:1]
        found.append(Record.pair(f"{i:04d}", picture, "jpg" if i % 3 == 0 else "png", captions, None, meta))
    return found


def clean_dataset(folder: Path, records: list[Record] | None = None) -> Path:
    """These records, packed."""
    made = records or clean_records()
    pack(FromRecords(lambda: made), folder, PackConfig(tokenizer="none", val=0, jobs=1))
    return folder
