"""Tables of vectors that a tower computes once: memory-mapped rows on disk, found again by record and fingerprint.

A table lies in ``<home>/<fingerprint>/``. The fingerprint is that of everything that decides its rows (weights,
preprocessing or tokenizer, data, views), so another tower is another folder and never a stale hit:

    rows.npy            (r, e) float32 or float16: `copies` rows a record, or one for each of its captions
    notes.npy           (r, 2) int64, of texts only: the hash of the text as the tower saw it, and whether it was cut
    uids.npy            (n, 16) uint8: which record each place is
    offsets.npy         (n + 1) int64, of texts only: where each record's captions begin
    table.json          written last: what it holds, a checksum for each chunk, and the records that could not be read

`data/build_features.py` writes it.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.core.errors import DataError
from diptych.core.seeds import folds
from diptych.data.dataset import Split

FORMAT = 1
TABLE, ROWS, NOTES, UIDS, OFFSETS = "table.json", "rows.npy", "notes.npy", "uids.npy", "offsets.npy"
CHECK_AT_MOST = 4 << 30
"""Bytes whose checksums are compared when a table is opened; of a larger one, chunks spread evenly over it."""


@dataclass(frozen=True)
class TableSpec:
    """What a table holds. `label` is for people; `copies`: rows a record (a text table has one a caption instead);
    `chunk`: records computed and noted together."""

    fingerprint: str
    label: str
    kind: Literal["image", "text"]
    width: int
    dtype: Literal["float32", "float16"] = "float32"
    copies: int = 1
    chunk: int = 256

    def described(self) -> dict[str, Any]:
        """As table.json keeps it."""
        return {"fingerprint": self.fingerprint, "kind": self.kind, "width": self.width, "dtype": self.dtype} | {
            "copies": self.copies,
            "chunk": self.chunk,
        }


Places = Sequence[int] | Int64[np.ndarray, " b"]
"""Numbers of records, or of views or captions of them."""


class FeatureTable:
    """A whole table, opened for reading. Forked workers share its memory; nobody writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info: dict[str, Any] = json.loads((folder / TABLE).read_text())
        self.kind: str = self.info["kind"]
        self.copies = int(self.info["copies"])
        self.bad: dict[int, str] = {int(i): why for i, why in self.info["bad"].items()}
        self._map()

    def _map(self) -> None:
        self._rows = np.load(self.folder / ROWS, mmap_mode="r", allow_pickle=False)
        text = self.kind == "text"
        self._offsets = np.load(self.folder / OFFSETS, allow_pickle=False) if text else None
        self._notes = np.load(self.folder / NOTES, mmap_mode="r", allow_pickle=False) if text else None

    def __getstate__(self) -> dict[str, Any]:  # a spawned worker maps the files itself
        return {k: v for k, v in self.__dict__.items() if k not in ("_rows", "_offsets", "_notes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    @property
    def width(self) -> int:
        """Numbers a row."""
        return int(self._rows.shape[1])

    def gather(self, records: Places, which: Places) -> Float[Tensor, "b e"]:
        """One row a record: its view or caption number `which`; float32, in one read of the map."""
        return torch.from_numpy(self._rows[self._places(records, which)].astype(np.float32, copy=False))

    def notes(self, records: Places, which: Places) -> Int64[Tensor, "b 2"]:
        """(hash of the text as the tower saw it, 1 if it was cut) of each caption. Texts only."""
        assert self._notes is not None
        return torch.from_numpy(self._notes[self._places(records, which)])

    def _places(self, records: Places, which: Places) -> np.ndarray:
        record, number = np.asarray(records, np.int64), np.asarray(which, np.int64)
        return (record * self.copies if self._offsets is None else self._offsets[record]) + number


def gather_features(
    tables: Mapping[str, FeatureTable],
    records: Int64[np.ndarray, " b"],
    captions: Int64[np.ndarray, " b"],
    keys: list[int],
) -> dict[str, Float[Tensor, "b _"]]:
    """One row a sample of each table: of the caption that it has drawn, or of the view that it draws by its own key."""
    found = {}
    for name, table in tables.items():
        which = captions if table.kind == "text" else views_of(keys, table.copies)
        found[name] = table.gather(records, which)
    return found


def views_of(keys: list[int], copies: int) -> Int64[np.ndarray, " b"]:
    """Which of `copies` views of its image the sample with each key draws."""
    if copies == 1:
        return np.zeros(len(keys), dtype=np.int64)
    drawn = np.array([k >> 10 for k in folds((), keys, ("view",))], dtype=np.float64) * 2.0**-53
    return (drawn * copies).astype(np.int64)


def check_uids(folder: Path, split: Split) -> None:
    """Raise DataError unless the table in `folder`, whole or begun, is one of the records of `split` in their order."""
    try:
        uids = np.load(folder / UIDS, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        uids = None
    if not np.array_equal(uids, split.uids()):
        raise DataError(
            f"{folder} must hold the records of {split.name} in their order; its uids are others. It belongs to other "
            "data: delete the folder."
        )


def _sizes_fit(folder: Path, spec: TableSpec, split: Split) -> bool:
    try:
        rows = np.load(folder / ROWS, mmap_mode="r", allow_pickle=False)
        if spec.kind == "image":
            return bool(rows.shape == (len(split) * spec.copies, spec.width))
        offsets = np.load(folder / OFFSETS, allow_pickle=False)
        notes = np.load(folder / NOTES, mmap_mode="r", allow_pickle=False)
        return len(offsets) == len(split) + 1 and rows.shape == (offsets[-1], spec.width) and len(notes) == len(rows)
    except (OSError, ValueError, EOFError):
        return False


def damaged_chunks(folder: Path, spec: TableSpec, split: Split, checks: Sequence[int]) -> list[int]:
    """Chunks whose bytes are not those that were written; at most CHECK_AT_MOST bytes are read."""
    if not _sizes_fit(folder, spec, split):
        return list(range(len(checks)))
    rows = np.load(folder / ROWS, mmap_mode="r", allow_pickle=False)
    text = spec.kind == "text"
    notes = np.load(folder / NOTES, mmap_mode="r", allow_pickle=False) if text else None
    offsets = np.load(folder / OFFSETS, allow_pickle=False) if text else None
    found = []
    for i in range(0, len(checks), max(1, -(-rows.nbytes // CHECK_AT_MOST))):
        start, stop = i * spec.chunk, min((i + 1) * spec.chunk, len(split))
        first, count = span(spec, offsets, start, stop)
        check = zlib.crc32(rows[first : first + count].tobytes())
        if notes is not None:
            check = zlib.crc32(notes[first : first + count].tobytes(), check)
        if check != checks[i]:
            found.append(i)
    return found


def span(spec: TableSpec, offsets: np.ndarray | None, start: int, stop: int) -> tuple[int, int]:
    """(first row, number of rows) of records start to stop."""
    if offsets is None:
        return start * spec.copies, (stop - start) * spec.copies
    return int(offsets[start]), int(offsets[stop] - offsets[start])
