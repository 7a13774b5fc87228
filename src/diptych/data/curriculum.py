"""Easy records first: a pool that grows along a score, out of which the samples are drawn.

Competence-based curriculum learning (Platanios et al. 2019, arXiv:1903.09848): at each moment samples are drawn
uniformly from that share of the records which is easiest, and the share grows to all of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64
from numpy import ndarray
from pydantic import field_validator

from diptych.core.config import Config
from diptych.core.errors import ConfigError, DataError
from diptych.core.progress import say
from diptych.core.seeds import fold, permutes
from diptych.data.dataset import Split
from diptych.data.draws import Draws
from diptych.data.mixture import Mixed, part_seed
from diptych.data.samples import Order, Shuffled

CAPTION_LENGTH = "caption_length"
Schedule = tuple[tuple[float, float], ...]


class CurriculumConfig(Config):
    """Which records come first.

    scores     a parquet file with a row a record, `uid` and the score; empty: a column of the dataset's own
               records.parquet ("width", "height", "bytes"), or "caption_length", the mean characters of its captions
    column     the score's name there
    easy       which scores are easy
    schedule   (share of the run, share of the records): straight lines between these points. The last should end at 1:
               from where the share is 1, the order is that of a run without a curriculum

    Records without a score are counted, which is said, and join last. Equal scores join in random order.
    """

    scores: str = ""
    column: str = CAPTION_LENGTH
    easy: Literal["low", "high"] = "low"
    schedule: Schedule = ((0.0, 0.1), (0.5, 1.0))

    @field_validator("schedule")
    @classmethod
    def _schedule(cls, schedule: Schedule) -> Schedule:
        ats, shares = [at for at, _ in schedule], [share for _, share in schedule]
        if not schedule or ats != sorted(set(ats)) or not all(0 <= at <= 1 for at in ats):
            raise ValueError(
                f"curriculum.schedule must be (share of the run, share of the records) with rising first numbers "
                f"between 0 and 1; got {schedule}. Try ((0, 0.1), (0.5, 1))."
            )
        if not all(0 < share <= 1 for share in shares):
            raise ValueError(
                f"curriculum.schedule must draw from shares above 0 and at most 1; got {shares}. Try ((0, 0.1), "
                "(0.5, 1))."
            )
        return schedule


class Paced(Order):
    """Records in the order of their scores, out of whose easiest part the samples are drawn.

    While the pool grows, a sample is drawn from it by a hash of its number, with replacement: within the first pool a
    record may come twice before another comes once. Where the pool is whole, samples go through epochs as ever, each
    record once. Both are pure functions of (seed, n, length of the run).
    """

    def __init__(self, ranked: Int64[ndarray, " n"], schedule: Schedule, seed: int, total_samples: int) -> None:
        self.size = len(ranked)
        self._ranked, self._schedule, self._seed, self._total = ranked, schedule, seed, max(1, total_samples)
        self._whole = Shuffled(self.size, seed)

    def pool(self, samples: Int64[ndarray, " b"]) -> Int64[ndarray, " b"]:
        """How many records the samples of those numbers are drawn from."""
        ats, shares = zip(*self._schedule, strict=True)
        share = np.interp(samples / self._total, ats, shares)
        return np.clip(np.ceil(share * self.size - 1e-9), 1, self.size).astype(np.int64)

    def places(
        self, turns: Int64[ndarray, " b"], samples: Int64[ndarray, " b"], further: int = 0
    ) -> Int64[ndarray, " b"]:
        """The record of each sample."""
        pool = self.pool(samples)
        start = fold(self._seed, "curriculum", further)
        u = Draws([start ^ int(turn) for turn in turns]).uniform("pool")[:, 0]
        drawn = self._ranked[np.minimum((u * pool).astype(np.int64), pool - 1)]
        return np.where(pool == self.size, self._whole.places(turns, samples, further), drawn)


def order_of(split: Split, curriculum: CurriculumConfig | None, seed: int, total_samples: int) -> Order:
    """The order of a run over `split`: shuffled epochs, a mixture of such, each by the curriculum if there is one."""
    parts = split.parts
    scores = None if curriculum is None else scores_of(split, curriculum)
    orders = list[Order]()
    for number, (_, start, end) in enumerate(parts):
        own = seed if len(parts) == 1 else part_seed(seed, number)
        if curriculum is None or scores is None:
            orders.append(Shuffled(end - start, own))
        else:
            ranked = _ranked(scores[start:end], curriculum.easy, own)
            orders.append(Paced(ranked, curriculum.schedule, own, total_samples))
    if len(parts) == 1:
        return orders[0]
    return Mixed([(weight, start, o) for (weight, start, _), o in zip(parts, orders, strict=True)], seed)


def _ranked(scores: Float64[ndarray, " n"], easy: Literal["low", "high"], seed: int) -> Int64[ndarray, " n"]:
    """Records from the easiest to the hardest, then those without a score; equal ones in random order."""
    hard = np.where(np.isnan(scores), np.inf, scores if easy == "low" else -scores)
    tie = permutes(np.arange(len(scores)), len(scores), seed, "ties")
    return np.lexsort((tie, np.isnan(scores), hard)).astype(np.int64)


def scores_of(split: Split, config: CurriculumConfig) -> Float64[ndarray, " n"]:
    """The score of each record of `split`, NaN where there is none (their number is said)."""
    files = [Path(config.scores)] if config.scores else _tables(split)
    uids, values = _read(files, config.column, bool(config.scores))
    at = pc.index_in(_hex(split.uids()), value_set=uids)
    found = pc.cast(pc.take(values, at), pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    missing = int(np.isnan(found).sum())
    if missing == len(found):
        raise DataError(
            f"the scores of a curriculum must be of the records of {split.name}; {files[0]} has none of them. "
            "Write a column of its uids (records.parquet has them), and the score beside it."
        )
    if missing:
        say(f"curriculum: {missing:,} of {len(found):,} records have no {config.column} and join last.")
    return found


def _tables(split: Split) -> list[Path]:
    folders = dict.fromkeys(tar.parent.parent for tar in split.shards)
    return [folder / "records.parquet" for folder in folders]


def _read(files: Sequence[Path], column: str, given: bool) -> tuple[Any, Any]:
    """(uids, scores) in some tables, as Arrow arrays."""
    uids, values = [], []
    for file in files:
        try:
            known = pq.read_schema(file).names
            computed = not given and column == CAPTION_LENGTH
            if not computed and not {"uid", column} <= set(known):
                raise ConfigError(
                    f"curriculum.column must be a column of {file} beside uid; got {column!r} and the columns "
                    f"{', '.join(known)}" + ("." if given else f", or {CAPTION_LENGTH}.") + " Name one that is there."
                )
            table = pq.read_table(file, columns=["uid", "captions" if computed else column])
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"the scores of a curriculum must be a parquet file; got {file}, {error}. Name it in curriculum.scores."
            ) from None
        scores = _caption_lengths(table["captions"]) if computed else table[column].combine_chunks()
        if not (pa.types.is_integer(scores.type) or pa.types.is_floating(scores.type)):
            raise ConfigError(
                f"curriculum.column must hold numbers; got {column!r} of {scores.type}. Name another column."
            )
        uids.append(pc.cast(table["uid"].combine_chunks(), pa.string()))
        values.append(pc.cast(scores, pa.float64()))
    return pa.concat_arrays(uids), pa.concat_arrays(values)


def _caption_lengths(captions: Any) -> Any:
    """The mean length in characters of each record's captions; none where it has none."""
    lists = captions.combine_chunks()
    lengths = pc.utf8_length(lists.flatten()).to_numpy(zero_copy_only=False).astype(np.float64)
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    sums = np.concatenate([[0.0], np.cumsum(lengths)])
    ends = np.cumsum(counts)
    total = sums[ends] - sums[ends - counts]
    return pa.array(np.divide(total, counts, out=np.full(len(counts), np.nan), where=counts > 0), from_pandas=True)


def _hex(uids: ndarray) -> Any:
    """Uids as the 32 hex digits that tables hold."""
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    text = np.ascontiguousarray(digits[np.stack([uids >> 4, uids & 15], axis=2)].reshape(len(uids), 32))
    held = pa.Array.from_buffers(pa.binary(32), len(uids), [None, pa.py_buffer(text)])
    return pc.cast(pc.cast(held, pa.binary()), pa.string())
