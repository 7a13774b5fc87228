"""Curation: a pool through filters to a selection, and a reason for every record that does not stay.

Nothing is copied. What comes out is a folder:

    selection.npy    the uids that stay (data/selection.py)
    table.parquet    every record of the pool: uid, split, shard, kept, filter (its number), reason
    curation.json    the filters with their settings, counts by filter and reason, the pool's fingerprint

Each filter sees what those before it have left. A filter's verdict on a shard is a small file under ``parts/`` until
all is done, written whole or not at all, so that a curation that was killed goes on where it was; the result is the
same for any executor and number of workers.
"""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache, partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.core.config import Config, to_dict
from diptych.core.errors import ConfigError, DataError
from diptych.core.files import sweep, write_atomic, write_json
from diptych.core.progress import say, track
from diptych.data.candidates import CandidatePool, Shard
from diptych.data.executors.executor import Executor
from diptych.data.filters.filter import Filter, FilterConfig
from diptych.data.selection import Selection
from diptych.data.workers import one_thread

FORMAT = 1
PARTS, STATE = "parts", "state"
"""What lies in a curation's folder until it is done: verdicts, and what filters have settled."""


class CurationConfig(Config):
    """A curation: filters in their order. `splits` of the dataset are the pool."""

    filters: tuple[FilterConfig, ...] = Field(min_length=1)
    splits: tuple[str, ...] = ("train",)


@dataclass
class CurationReport:
    """What a curation did: kept + dropped = seen. `str()` of it is for people. `dropped`: (filter, reason) -> count."""

    out: Path
    seen: int
    kept: int
    dropped: dict[tuple[str, str], int] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"Kept {self.kept:,} of {self.seen:,} records ({self.kept / max(self.seen, 1):.1%}): {self.out}"]
        for (name, reason), count in self.dropped.items():
            lines.append(f"  {name}: {count:,} {reason}")
        return "\n".join(lines)


def curate(
    path: str | PathLike[str], curation: CurationConfig, out: str | PathLike[str], workers: Executor
) -> CurationReport:
    """Curate the packed dataset at `path` into the folder `out`, which may hold a part of the same curation.

    Raises ConfigError where `out` holds something else.
    """
    out, pool = Path(out), CandidatePool(path, curation.splits)
    _opened.cache_clear()  # another dataset may have lain there
    _claim(out, _mark(pool, curation))
    if (out / "curation.json").is_file():
        say(f"{out} holds this curation already.")
    else:
        for number, config in enumerate(curation.filters):
            _pass(pool, out, number, config, workers)
        _finish(pool, curation, out)
    for left in (PARTS, STATE):  # also where a process was killed that had come so far
        shutil.rmtree(out / left, ignore_errors=True)
    return _read_report(out)


def _pass(pool: CandidatePool, out: Path, number: int, config: FilterConfig, workers: Executor) -> None:
    """One filter over all shards; what is done already is left."""
    parts = out / PARTS
    todo = [shard for shard in pool.shards if not _part(parts, number, shard).is_file()]
    if not todo:
        return
    made, said = config.build(), f"filter {number + 1}: {config.name}"
    if made.gathers:  # of all shards, also where some were judged before the process was killed
        given = [_Item(shard, _alive_before(pool, parts, number, shard)) for shard in pool.shards]
        found = workers.map(partial(_gather, made, pool.path, pool.splits), given)
        state = out / STATE / str(number)
        state.mkdir(parents=True, exist_ok=True)
        made.settle(track(found, f"{said} (gathers)", len(given)), pool, state)
    given = [_Item(shard, _alive_before(pool, parts, number, shard)) for shard in todo]
    judged = workers.map(partial(_judge, made, pool.path, pool.splits), given)
    for item, reasons in zip(given, track(judged, said, len(given)), strict=True):
        write_atomic(_part(parts, number, item.shard), json.dumps(reasons))


class _Item(NamedTuple):
    """A shard, and which of its records are left, in bits: all that a worker is sent."""

    shard: Shard
    alive: bytes


def _gather(made: Filter, path: Path, splits: tuple[str, ...], item: _Item) -> Any:
    rows = _opened(path, splits).rows(item.shard)
    with one_thread():
        return made.gather(rows, _bits(item.alive, len(rows)))


def _judge(made: Filter, path: Path, splits: tuple[str, ...], item: _Item) -> list[str]:
    rows = _opened(path, splits).rows(item.shard)
    alive = _bits(item.alive, len(rows))
    with one_thread():
        reasons = made.reasons(rows, alive)
    if len(reasons) != len(rows):
        raise DataError(
            f"{type(made).__name__} must give a reason or '' for each record; got {len(reasons)} for {len(rows)}."
        )
    return [r if a else "" for r, a in zip(reasons, alive.tolist(), strict=True)]


@lru_cache(4)
def _opened(path: Path, splits: tuple[str, ...]) -> CandidatePool:
    return CandidatePool(path, splits)


def _bits(alive: bytes, count: int) -> Bool[ndarray, " n"]:
    return np.unpackbits(np.frombuffer(alive, np.uint8), count=count).astype(bool)


def _alive_before(pool: CandidatePool, parts: Path, number: int, shard: Shard) -> bytes:
    """Which records of a shard the filters before the `number`-th have left."""
    alive = np.ones(pool.records_of(shard), dtype=bool)
    for before in range(number):
        alive &= np.array([not r for r in _read(parts, before, shard)], dtype=bool)
    return np.packbits(alive).tobytes()


def _part(parts: Path, number: int, shard: Shard) -> Path:
    return parts / str(number) / f"{shard}.json"


def _read(parts: Path, number: int, shard: Shard) -> list[str]:
    found: list[str] = json.loads(_part(parts, number, shard).read_text())
    return found


def _finish(pool: CandidatePool, curation: CurationConfig, out: Path) -> None:
    """The table, the selection and the report, from the parts, a shard at a time."""
    schema = pa.schema(
        [
            *(("uid", pa.string()), ("split", pa.string()), ("shard", pa.string())),
            *(("kept", pa.bool_()), ("filter", pa.int16()), ("reason", pa.string())),
        ]
    )
    kept, counts, seen = [], Counter[tuple[int, str]](), 0
    with pq.ParquetWriter(out / "table.parquet.writing", schema, compression="zstd") as writer:
        for shard in pool.shards:
            rows, n = pool.rows(shard), 0
            verdicts = [_read(out / PARTS, number, shard) for number in range(len(curation.filters))]
            first = [
                next(((number, said[i]) for number, said in enumerate(verdicts) if said[i]), (-1, ""))
                for i in range(len(rows))
            ]
            stays = np.array([number < 0 for number, _ in first], dtype=bool)
            counts.update(x for x in first if x[0] >= 0)
            seen, n = seen + len(rows), len(rows)
            kept.append(rows.uids[stays])
            columns = [rows.table["uid"].combine_chunks(), [shard.split] * n, [shard.name] * n, stays]
            columns += [[number for number, _ in first], [reason for _, reason in first]]
            writer.write_table(
                pa.table([pa.array(c, type=f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
            )
    (out / "table.parquet.writing").replace(out / "table.parquet")
    selection = Selection(np.concatenate(kept) if kept else np.zeros((0, 16), np.uint8))
    selection.save(out / "selection.npy.writing")
    (out / "selection.npy.writing").replace(out / "selection.npy")
    numbers = sorted(counts.items())
    write_json(
        out / "curation.json",
        {
            "format": FORMAT,
            "pool": {"path": str(pool.path), "fingerprint": pool.dataset.fingerprint},
            "curation": to_dict(curation),
            "seen": seen,
            "kept": len(selection),
            "dropped": [
                {"filter": n, "name": curation.filters[n].name, "reason": reason, "count": c}
                for (n, reason), c in numbers
            ],
            "selection": selection.fingerprint,
        },
    )


def _read_report(out: Path) -> CurationReport:
    found = json.loads((out / "curation.json").read_text())
    dropped = {(f"{d['filter'] + 1} {d['name']}", d["reason"]): d["count"] for d in found["dropped"]}
    return CurationReport(out, found["seen"], found["kept"], dropped)


def _mark(pool: CandidatePool, curation: CurationConfig) -> str:
    said = json.dumps([pool.dataset.fingerprint, to_dict(curation)], sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def _claim(out: Path, mark: str) -> None:
    path = out / "mark"
    if path.is_file() and path.read_text() == mark:
        sweep(out)
        return
    sweep(out, path.name)  # killed when nothing but this was there
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"the output must be a new folder or hold a part of this same curation; got {out}, which holds something "
            "else. Name another --out."
        )
    write_atomic(path, mark)
