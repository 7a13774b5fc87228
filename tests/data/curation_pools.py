"""Small packed pools for tests of filters and curation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.core.record import Record
from diptych.data.candidates import CandidatePool, Rows
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from tests.data.pictures import png


def packed_pool(
    folder: Path, captions: Sequence[Sequence[str]], metas: Sequence[dict[str, Any]] = (), per_shard: int = 4
) -> Path:
    """A dataset of a picture of noise a caption list, in their order, `per_shard` records a shard."""

    def records() -> list[Record]:
        return [
            Record.pair(
                f"{i:05d}",
                png(i, height=8, width=8 + i % 3),
                "png",
                tuple(said),
                meta={"split": "train", **(metas[i] if metas else {})},
            )
            for i, said in enumerate(captions)
        ]

    made = records()
    config = PackConfig(tokenizer="none", records_per_shard=per_shard, jobs=1)
    pack(FromRecords(lambda: made), folder, config)
    return folder


def all_rows(path: Path) -> list[Rows]:
    """The rows of every shard."""
    pool = CandidatePool(path)
    return [pool.rows(shard) for shard in pool.shards]
