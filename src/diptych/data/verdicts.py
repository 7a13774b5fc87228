"""What a filter found of every record of a pool when it knew all of it: a byte a record, in a file a shard.

Such findings are too large to be sent along with the filter; workers read those of the shard before them.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from diptych.core.errors import DataError
from diptych.data.candidates import CandidatePool, Rows


def write_verdicts(folder: Path, pool: CandidatePool, codes: UInt8[ndarray, " n"]) -> None:
    """A code of each record of the pool, in the pool's order."""
    at = 0
    for shard in pool.shards:
        np.save(folder / f"{shard}.npy", codes[at : at + pool.records_of(shard)])
        at += pool.records_of(shard)
    if at != len(codes):
        raise DataError(f"verdicts must be one a record of {pool.path}; got {len(codes):,} for {at:,}.")


def read_verdicts(folder: Path | None, rows: Rows) -> UInt8[ndarray, " n"]:
    """Those of a shard. Raises DataError where the filter has not been settled."""
    path = (folder or Path()) / f"{rows.shard}.npy"
    if folder is None or not path.is_file():
        raise DataError(
            f"a filter that gathers must be settled before it judges; there is nothing of shard {rows.shard} in "
            f"{folder}. Curate with diptych curate, on an engine whose workers see the same folders."
        )
    return np.load(path, allow_pickle=False)


def starts_of(pool: CandidatePool) -> list[int]:
    """The place in the pool of each shard's first record."""
    return [0, *np.cumsum([pool.records_of(shard) for shard in pool.shards]).tolist()][: len(pool.shards)]
