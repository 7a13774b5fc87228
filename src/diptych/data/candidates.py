"""The pool that is curated: a packed dataset's records as columns, a shard at a time, with the scores written of them.

Scores lie beside the dataset, ``DIR/scores/NAME/<split>-<shard>.parquet``, a file a shard with the columns uid and
value, written by ``diptych score`` (a model) or by any program that writes such files. A filter reads columns and never
a model.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64, UInt8
from numpy import ndarray

from diptych.core.errors import DataError
from diptych.data.dataset import Dataset, Split

SCORES = "scores"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


class Shard(NamedTuple):
    """One shard of a pool: its split, and its name without ending."""

    split: str
    name: str

    def __str__(self) -> str:
        return f"{self.split}-{self.name}"


class Rows:
    """The records of one shard, in order: n of them."""

    def __init__(self, pool: "CandidatePool", shard: Shard, table: pa.Table, split: Split, first: int) -> None:
        self.pool, self.shard, self.table = pool, shard, table
        self._split, self._first = split, first

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def uids(self) -> UInt8[ndarray, "n 16"]:
        """Their uids."""
        raw = b"".join(bytes.fromhex(u) for u in self.table["uid"].to_pylist())
        return np.frombuffer(raw, np.uint8).reshape(-1, 16)

    @cached_property
    def captions(self) -> list[list[str]]:
        """The alternatives of each one's first text."""
        found: list[list[str]] = self.table["captions"].to_pylist()
        return found

    @property
    def texts(self) -> list[str]:
        """The first caption of each, "" where there is none: what rules about "the text" of a pair are about."""
        return [c[0] if c else "" for c in self.captions]

    @property
    def widths(self) -> Int64[ndarray, " n"]:
        """Of their first images, in pixels as they came; 0 without one."""
        return np.asarray(self.table["width"].to_numpy(), dtype=np.int64)

    @property
    def heights(self) -> Int64[ndarray, " n"]:
        """The same."""
        return np.asarray(self.table["height"].to_numpy(), dtype=np.int64)

    @property
    def image_ids(self) -> Int64[ndarray, " n"]:
        """Hashes of their images' bytes: equal content, equal id."""
        return np.asarray(self.table["image_id"].to_numpy(), dtype=np.int64)

    def scores(self, name: str) -> Float64[ndarray, " n"]:
        """What was written of them under that name. Raises DataError where a record has none."""
        path = self.pool.score_path(name, self.shard)
        try:
            found = pq.read_table(path, columns=["uid", "value"])
        except FileNotFoundError:
            raise DataError(
                f"scores called {name!r} must be there for shard {self.shard} of {self.pool.path}; there are "
                f"{', '.join(self.pool.score_names()) or 'none'}. Write them: diptych score {self.pool.path} --with RUN"
            ) from None
        if found["uid"].to_pylist() == self.table["uid"].to_pylist():
            return np.asarray(found["value"].to_numpy(), dtype=np.float64)
        known = dict(zip(found["uid"].to_pylist(), found["value"].to_pylist(), strict=True))
        missing = [u for u in self.table["uid"].to_pylist() if u not in known]
        if missing:
            raise DataError(
                f"{path} must hold a value for every record of its shard; {len(missing):,} have none, the first is "
                f"{missing[0]}. Score the dataset again."
            )
        return np.array([known[u] for u in self.table["uid"].to_pylist()], dtype=np.float64)

    def image(self, i: int) -> bytes:
        """The encoded bytes of the i-th one's first image. Raises DataError if it has none."""
        return self._split.image_bytes(self._first + i)

    def meta(self, i: int) -> dict[str, Any]:
        """Whatever else the source knew about the i-th."""
        return self._split.meta(self._first + i)


class CandidatePool:
    """A packed dataset, opened to be curated: `shards` of the splits that are (train, unless told otherwise)."""

    def __init__(self, path: str | PathLike[str], splits: Sequence[str] = ("train",)) -> None:
        self.dataset = Dataset.open(path)
        self.path, self.splits = self.dataset.path, tuple(splits)
        self.shards = [
            Shard(split, tar.name.removesuffix(".tar")) for split in splits for tar in self.dataset.split(split).shards
        ]
        if not (self.path / "records.parquet").is_file():
            raise DataError(f"{self.path} must hold records.parquet to be curated; it holds none. Pack it again.")
        self._starts: dict[Shard, int] = {}
        self._counts: dict[Shard, int] = {}
        for split in splits:
            at = 0
            for described in self.dataset.info["splits"][split]["shards"]:
                shard = Shard(split, str(described["name"]).removesuffix(".tar"))
                self._starts[shard], self._counts[shard] = at, int(described["records"])
                at += int(described["records"])

    def __len__(self) -> int:
        return sum(len(self.dataset.split(s)) for s in {shard.split for shard in self.shards})

    def records_of(self, shard: Shard) -> int:
        """How many records a shard has."""
        return self._counts[shard]

    def rows(self, shard: Shard) -> Rows:
        """The records of a shard."""
        wanted = [("split", "=", shard.split), ("shard", "in", [shard.name, f"{shard.name}.tar"])]
        table = pq.read_table(self.path / "records.parquet", filters=wanted)
        return Rows(self, shard, table, self.dataset.split(shard.split), self._starts[shard])

    def score_path(self, name: str, shard: Shard) -> Path:
        """Where the scores called `name` of a shard are."""
        if not NAME.fullmatch(name):
            raise DataError(f"a name of scores must be letters, digits, _ . -; got {name!r}. Rename them.")
        return self.path / SCORES / name / f"{shard}.parquet"

    def score_names(self) -> list[str]:
        """The scores that there are."""
        folder = self.path / SCORES
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def write_scores(pool: CandidatePool, name: str, rows: Rows, values: Float64[ndarray, " n"]) -> Path:
    """Write one shard's scores, whole or not at all; returns where."""
    if len(values) != len(rows):
        raise DataError(f"scores must be one a record; got {len(values):,} for {len(rows):,} of {rows.shard}.")
    path = pool.score_path(name, rows.shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.writing")
    table = pa.table({"uid": rows.table["uid"], "value": pa.array(np.asarray(values, dtype=np.float32))})
    pq.write_table(table, beside, compression="zstd")
    beside.replace(path)
    return path
