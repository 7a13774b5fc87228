"""What a filter says of a pool, the whole way: gathered, settled, pickled, judged."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diptych.data.candidates import CandidatePool
from diptych.data.filters.filter import FilterConfig


def judged(pool: CandidatePool, config: FilterConfig, folder: Path, alive: Sequence[bool] | None = None) -> list[str]:
    """The reason of every record, "" for one that stays; "gone" for those that were not alive."""
    given = np.ones(len(pool), dtype=bool) if alive is None else np.array(alive, dtype=bool)
    ends = np.cumsum([pool.records_of(s) for s in pool.shards])
    parts = np.split(given, ends[:-1])
    made = config.build()
    if made.gathers:
        folder.mkdir(parents=True, exist_ok=True)
        told = [made.gather(pool.rows(s), a) for s, a in zip(pool.shards, parts, strict=True)]
        made.settle(iter(pickle.loads(pickle.dumps(told))), pool, folder)
    made = pickle.loads(pickle.dumps(made))
    said: list[str] = []
    for shard, a in zip(pool.shards, parts, strict=True):
        found = made.reasons(pool.rows(shard), a)
        said += [r if there else "gone" for r, there in zip(found, a.tolist(), strict=True)]
    return said
