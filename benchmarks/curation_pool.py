"""Made pools of any size for `curation_memory`: tiny pictures of noise, real words, planted duplicates.

Written shard by shard in the format of `diptych pack`, without its checks, which a million made pictures do not need.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.material import captions
from diptych.core.files import cache_dir, new_directory, write_json
from diptych.core.progress import say
from diptych.core.record import Record
from diptych.data.dataset import FORMAT
from diptych.data.pack import RECORDS
from diptych.data.shards import ShardWriter, image_id

SIDE = 16
PER_SHARD = 10_000
WORDS = 9973
"""So many numbers are words of captions, that few captions are equal."""
COPIES = 50
"""Every so-manieth record has the picture of the one before it."""


def write_pool(records: int, per_shard: int = PER_SHARD) -> Path:
    """The pool of so many records in the cache, made once."""
    folder = cache_dir("benchmarks") / f"curation-{records}-{per_shard}"
    if folder.exists():
        return folder
    say(f"making a pool of {records:,} records in {folder}")
    shards, random, words = [], np.random.default_rng(0), captions(4096)
    with new_directory(folder) as new:
        tables = pq.ParquetWriter(new / "records.parquet", RECORDS, compression="zstd")
        with tables, ShardWriter(new / "train", per_shard) as writer:
            for start in range(0, records, per_shard):
                count = min(per_shard, records - start)
                made = _records(start, count, random, words)
                for record in made:
                    writer.add(record, ((SIDE, SIDE),), record.uid)
                tables.write_table(_table(made, writer.shards[-1]))
                shards.append({"name": writer.shards[-1], "records": count})
        split = {"records": records, "bytes": writer.bytes, "shards": shards}
        write_json(
            new / "dataset.json",
            {
                **{"format": FORMAT, "splits": {"train": split}, "seen": records, "kept": records, "rejected": {}},
                **{"captions": {"records": records, "texts": records}, "fingerprint": f"made-{records}-{per_shard}"},
            },
        )
    return folder


def _records(start: int, count: int, random: np.random.Generator, words: list[str]) -> list[Record]:
    pixels = random.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    chosen = random.integers(0, len(words), (count, 2)).tolist()
    found = []
    for i in range(count):
        number = start + i
        picture = pixels[i - 1] if i and number % COPIES == 0 else pixels[i]
        caption = f"{words[chosen[i][0]]}, {words[chosen[i][1]]} {number % WORDS}"
        found.append(Record.pair(f"{number:09d}", png(picture), "png", (caption,)))
    return found


def png(pixels: np.ndarray) -> bytes:
    """RGB pixels (h, w, 3) as a PNG that is not compressed."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def _table(made: list[Record], shard: str) -> pa.Table:
    count = len(made)
    columns = {
        **{"uid": [r.uid for r in made], "key": [r.key for r in made], "split": ["train"] * count},
        **{"shard": [shard] * count, "width": [SIDE] * count, "height": [SIDE] * count, "format": ["png"] * count},
        **{"captions": [list(r.segments[1].texts) for r in made], "bytes": [len(r.segments[0].data) for r in made]},
        **{"image_id": [image_id(r) for r in made], "images": [1] * count},
        **{"further_texts": [[] for _ in made], "synthetic": [0] * count},
    }
    return pa.table(columns, schema=RECORDS)
