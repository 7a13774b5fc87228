"""Pools of pictures with planted copies, for the tests of duplicates and leaks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.core.record import Record
from diptych.data.candidates import CandidatePool
from diptych.data.filters.filter import Filter
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from tests.data.pictures import encode, pixels

CHANGES = ("reencoded", "smaller", "squeezed", "brighter")
"""Ways in which a picture may have been saved anew."""


def picture(seed: int) -> bytes:
    """A drawing of blocks."""
    return encode(pixels(seed, 96, 96))


def changed(seed: int, how: str) -> bytes:
    """The same one saved anew."""
    array = pixels(seed, 96, 96)
    if how == "reencoded":
        return encode(array, "JPEG", quality=60)
    if how == "brighter":
        return encode((array * 0.93 + 15).clip(0, 255).astype(np.uint8))
    size = (64, 64) if how == "smaller" else (120, 80)
    return encode(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC))


def packed_pictures(
    folder: Path, pictures: Sequence[tuple[bytes, str]], per_shard: int = 7, held: Sequence[tuple[bytes, str]] = ()
) -> CandidatePool:
    """A pool of pictures with their captions in their order; its dataset has `held` as the split test."""

    def records() -> list[Record]:
        return [
            Record.pair(
                f"{split}{i:04d}",
                data,
                (data[1:4].lower() == b"png" and "png") or "jpg",
                (text,),
                meta={"split": split},
            )
            for split, pairs in (("train", pictures), ("test", held))
            for i, (data, text) in enumerate(pairs)
        ]

    made = records()
    pack(FromRecords(lambda: made), folder, PackConfig(tokenizer="none", records_per_shard=per_shard, jobs=1))
    return CandidatePool(folder)


def judged(made: Filter, pool: CandidatePool, state: Path, alive: np.ndarray | None = None) -> dict[str, str]:
    """What a filter says of each record that is alive, by its first caption."""
    alive = np.ones(len(pool), dtype=bool) if alive is None else alive
    parts, at = [], 0
    for shard in pool.shards:
        parts.append(alive[at : at + pool.records_of(shard)])
        at += pool.records_of(shard)
    state.mkdir(exist_ok=True, parents=True)
    rows = [pool.rows(shard) for shard in pool.shards]
    made.settle(iter([made.gather(r, a) for r, a in zip(rows, parts, strict=True)]), pool, state)
    return {
        text: reason
        for r, a in zip(rows, parts, strict=True)
        for text, reason, there in zip(r.texts, made.reasons(r, a), a.tolist(), strict=True)
        if there
    }
