"""A packed dataset with faults that curation knows."""

from pathlib import Path

import numpy as np

from diptych.core.record import Record
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from tests.data.pictures import encode
from tests.train.tiny_run import COLOURS, SHAPES

GOOD, BAD, TEST, LEAKED = 40, 8, 10, 2
"""Records of train with a caption of three words and with one of one, of test, and of test those that are copies."""


def picture(i: int, colour: str) -> bytes:
    """A block of a colour somewhere on noise, 16 pixels a side."""
    rng = np.random.default_rng(i)
    pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    pixels[4:12, 4:12] = COLOURS[colour]
    return encode(pixels)


def curated_pool(folder: Path) -> Path:
    """`GOOD` + `BAD` records of train, 16 a shard, and `TEST` of test, of which the last `LEAKED` have images of
    train; of the others the last one has the first one's caption."""
    records = []
    names = [(c, s) for s in SHAPES for c in COLOURS]
    for i in range(GOOD + BAD):
        colour, shape = names[i % len(names)]
        said = f"a {colour} {shape}" if i < GOOD else "thing"
        records.append(Record.pair(f"{i:03d}", picture(i, colour), "png", (said,), meta={"split": "train"}))
    for i in range(TEST):
        leaked = i >= TEST - LEAKED
        colour, shape = names[i % (TEST - LEAKED - 1)]
        said = f"leaked {shape}" if leaked else f"a {colour} {shape}"
        data = picture(i, names[i][0]) if leaked else picture(1000 + i, colour)
        records.append(Record.pair(f"t{i:03d}", data, "png", (said,), meta={"split": "test"}))
    packing = PackConfig(records_per_shard=16, jobs=1, vocab_size=280, context_length=8)
    pack(FromRecords(lambda: records), folder, packing)
    return folder
