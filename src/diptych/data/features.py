"""Tables of vectors that a tower computes once: memory-mapped rows on disk, found again by record and fingerprint.

A table lies in ``<home>/<fingerprint>/``. The fingerprint is that of everything that decides its rows (weights,
preprocessing or tokenizer, data, views), so another tower is another folder and never a stale hit:

    rows.npy            (r, e) float32 or float16: `copies` rows a record, or one for each of its captions
    notes.npy           (r, 2) int64, of texts only: the hash of the text as the tower saw it, and whether it was cut
    uids.npy            (n, 16) uint8: which record each place is
    offsets.npy         (n + 1) int64, of texts only: where each record's captions begin
    progress-<rank>.jsonl   while it is built: a line for each chunk of records that is safely on disk
    table.json          written last: what it holds, a checksum for each chunk, and the records that could not be read

Chunk i is computed by rank i % world. What a kill leaves is gone on with, by as many ranks as there then are.
"""

import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.core.distributed import barrier, broadcast_object, gather_objects, is_main, rank, world_size
from diptych.core.errors import DataError, DiptychError
from diptych.core.files import cache_dir, write_atomic, write_json
from diptych.core.progress import say, track
from diptych.core.seeds import fold
from diptych.data.dataset import Split
from diptych.data.samples import Sample

FORMAT = 1
TABLE, ROWS, NOTES, UIDS, OFFSETS = "table.json", "rows.npy", "notes.npy", "uids.npy", "offsets.npy"
SYNC_EVERY_S = 5.0
"""So much work at most is done again after a kill."""
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


@dataclass(frozen=True)
class Rows:
    """The rows of one chunk of records, in order; `bad` are records that could not be read, whose rows are any."""

    vectors: Float[np.ndarray, "r e"]
    notes: Int64[np.ndarray, "r 2"] | None = None
    bad: dict[int, str] = field(default_factory=dict)


Chunk = tuple[int, int]
"""Records from the first number up to, without, the second."""
Compute = Callable[[Sequence[Chunk]], Iterator[Rows]]
"""The rows of each of some chunks, in their order."""


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

    def gather(self, records: Sequence[int], which: Sequence[int]) -> Float[Tensor, "b e"]:
        """One row a record: its view or caption number `which`; float32, in one read of the map."""
        return torch.from_numpy(self._rows[self._places(records, which)].astype(np.float32, copy=False))

    def notes(self, records: Sequence[int], which: Sequence[int]) -> Int64[Tensor, "b 2"]:
        """(hash of the text as the tower saw it, 1 if it was cut) of each caption. Texts only."""
        assert self._notes is not None
        return torch.from_numpy(self._notes[self._places(records, which)])

    def _places(self, records: Sequence[int], which: Sequence[int]) -> np.ndarray:
        record, number = np.asarray(records, np.int64), np.asarray(which, np.int64)
        return (record * self.copies if self._offsets is None else self._offsets[record]) + number


def gather_features(tables: Mapping[str, FeatureTable], samples: Sequence[Sample]) -> dict[str, Float[Tensor, "b _"]]:
    """One row a sample of each table: of the caption that it has drawn, or of the view that it draws by its own key."""
    records, captions = [s.record for s in samples], [s.caption_number for s in samples]
    found = {}
    for name, table in tables.items():
        which = captions if table.kind == "text" else [view_of(s.key, table.copies) for s in samples]
        found[name] = table.gather(records, which)
    return found


def view_of(key: int, copies: int) -> int:
    """Which of `copies` views of its image the sample with `key` draws."""
    return 0 if copies == 1 else int((fold(key, "view") >> 10) * 2.0**-53 * copies)


def feature_table(spec: TableSpec, split: Split, beside: Path, compute: Compute) -> FeatureTable:
    """The table that `spec` names, computed now as far as it is not there yet, by all ranks together.

    It lies in `beside`/features, or in the cache folder (``$DIPTYCH_CACHE``) where that cannot be written to. Raises
    DataError where the disk has no room, or the ranks do not share it.
    """
    with _shared_errors():
        folder = _home(spec, beside) if is_main() else None
    folder = broadcast_object(folder)
    with _locked(folder) if is_main() else _nothing():
        with _shared_errors():
            ready = is_main() and _ready(folder, spec, split)
        if not broadcast_object(ready):
            _build(folder, spec, split, compute)
    with _shared_errors(everyone=True):
        if not (folder / TABLE).exists():
            raise DataError(
                f"{folder} must be on a disk that all processes see; process {rank()} sees no {TABLE} there. Put the "
                "dataset on a shared disk, or set DIPTYCH_CACHE to a folder on one."
            )
        return FeatureTable(folder)


def _build(folder: Path, spec: TableSpec, split: Split, compute: Compute) -> None:
    with _shared_errors():
        if is_main():
            _prepare(folder, spec, split)
    barrier()
    with _shared_errors(everyone=True):
        _fill(folder, spec, split, compute)
    barrier()
    with _shared_errors():
        if is_main():
            _complete(folder, spec, split)
    barrier()


def _home(spec: TableSpec, beside: Path) -> Path:
    """Where the table is, whole or begun; else where it shall be."""
    own = beside / "features"
    homes = [own]
    if not os.access(own if own.exists() else beside, os.W_OK):
        homes.append(cache_dir("features"))
    for home in homes:
        if (home / spec.fingerprint / TABLE).exists():
            return home / spec.fingerprint
    folder = homes[-1] / spec.fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _prepare(folder: Path, spec: TableSpec, split: Split) -> None:
    """Files of the right size, not yet filled; nothing is lost of what was begun."""
    if not (folder / UIDS).exists():
        offsets = None
        if spec.kind == "text":
            counts = [len(split.captions(i)) for i in track(range(len(split)), f"{spec.label}: counting captions")]
            offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        count = int(offsets[-1]) if offsets is not None else len(split) * spec.copies
        if not count:
            raise DataError(f"{split.name} must hold texts for a table of them; got none. Pack it with captions.")
        size = count * spec.width * np.dtype(spec.dtype).itemsize
        what = f"{count:,} {'texts' if offsets is not None else 'images'} x {spec.width} in {spec.dtype}"
        say(f"{spec.label}: {what} = {_readable(size)}, computed once into {folder}")
        free = shutil.disk_usage(folder).free
        if size > 0.98 * free:
            raise DataError(
                f"{folder} must have room for {_readable(size)} of vectors; got {_readable(free)}. Free some, set "
                "train.cached_dtype=float16 (half of it), or compute the tower at every step: train.frozen=live."
            )
        np.lib.format.open_memmap(folder / ROWS, "w+", np.dtype(spec.dtype), (count, spec.width))
        if offsets is not None:
            np.lib.format.open_memmap(folder / NOTES, "w+", np.dtype(np.int64), (count, 2))
            _save_array(folder / OFFSETS, offsets)
        _save_array(folder / UIDS, split.uids())  # last: the sign that all files are there
    else:
        done = len(_progress(folder)) * spec.chunk
        say(f"{spec.label}: going on in {folder}, {min(done, len(split)):,} of {len(split):,} records are done")


def _fill(folder: Path, spec: TableSpec, split: Split, compute: Compute) -> None:
    """Compute and write this rank's share of the chunks that are missing."""
    done = _progress(folder)
    starts = [s for s in range(0, len(split), spec.chunk) if s // spec.chunk not in done]
    chunks = [(s, min(s + spec.chunk, len(split))) for s in starts][rank() :: world_size()]
    if not chunks:
        return
    records = sum(stop - start for start, stop in chunks)
    for _ in track(_Writer(folder, spec).written(chunks, compute), spec.label, total=records):
        pass


class _Writer:
    """Writes chunks where they belong, and notes them once they are safely on disk."""

    def __init__(self, folder: Path, spec: TableSpec) -> None:
        self.folder, self.spec = folder, spec
        self.offsets = np.load(folder / OFFSETS, allow_pickle=False) if spec.kind == "text" else None
        self.paths = [folder / name for name in ((ROWS, NOTES) if spec.kind == "text" else (ROWS,))]
        self.headers = [_header(path) for path in self.paths]

    def written(self, chunks: Sequence[Chunk], compute: Compute) -> Iterator[int]:
        """Each record of `chunks`, once it is written."""
        files = [path.open("r+b") for path in self.paths]
        waiting: list[str] = []
        synced = time.monotonic()
        try:
            for (start, stop), rows in zip(chunks, compute(chunks), strict=True):
                waiting.append(self._write(files, start, stop, rows))
                if time.monotonic() - synced > SYNC_EVERY_S:
                    self._note(files, waiting)
                    synced = time.monotonic()
                yield from range(start, stop)
        finally:
            self._note(files, waiting)
            for file in files:
                file.close()

    def _write(self, files: Sequence[Any], start: int, stop: int, rows: Rows) -> str:
        first, count = _span(self.spec, self.offsets, start, stop)
        if rows.vectors.shape != (count, self.spec.width):
            raise DataError(f"{count} rows of {self.spec.width} numbers must come; got {rows.vectors.shape}.")
        vectors = rows.vectors.astype(self.spec.dtype)
        if not np.isfinite(vectors).all():
            raise DataError(
                f"{self.spec.label} must give finite numbers in {self.spec.dtype}; records {start} to {stop} got "
                "others. Look at the weights that it began with, or use train.cached_dtype=float32."
            )
        parts = [vectors] if self.offsets is None else [vectors, rows.notes]
        check = 0
        for file, header, part in zip(files, self.headers, parts, strict=True):
            assert part is not None
            raw = np.ascontiguousarray(part).tobytes()
            _write_at(file, header + first * part.shape[1] * part.itemsize, raw, self.folder)
            check = zlib.crc32(raw, check)
        return json.dumps({"chunk": start // self.spec.chunk, "crc": check, "bad": rows.bad}, ensure_ascii=False)

    def _note(self, files: Sequence[Any], waiting: list[str]) -> None:
        if not waiting:
            return
        for file in files:
            os.fsync(file.fileno())
        with (self.folder / f"progress-{rank()}.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n" + "\n".join(waiting) + "\n")  # begins a line of its own, whatever a kill has torn
            file.flush()
            os.fsync(file.fileno())
        waiting.clear()


def _complete(folder: Path, spec: TableSpec, split: Split) -> None:
    done = _progress(folder)
    chunks = -(-len(split) // spec.chunk)
    missing = [i for i in range(chunks) if i not in done]
    if missing:
        raise DataError(
            f"{folder} must hold {chunks:,} chunks, noted by all processes; got {len(missing):,} fewer. All machines "
            "must share its disk: put the dataset on such a one, or set DIPTYCH_CACHE to a folder there."
        )
    bad = {str(i): why for number in range(chunks) for i, why in done[number]["bad"].items()}
    table = {"format": FORMAT, **spec.described(), "label": spec.label, "records": len(split), "bad": bad}
    write_json(folder / TABLE, table | {"crc": [done[i]["crc"] for i in range(chunks)]})
    for path in folder.glob("progress-*.jsonl"):
        path.unlink()


def _ready(folder: Path, spec: TableSpec, split: Split) -> bool:
    """Whether the table is whole and sound. Chunks that are damaged are given up, to be computed again, and it is said.

    Raises DataError where the records are not those of `split`.
    """
    if not (folder / TABLE).exists():
        if (folder / UIDS).exists():
            _check_uids(folder, split)
        return False
    info = json.loads((folder / TABLE).read_text())
    if {k: info.get(k) for k in spec.described()} != spec.described() or info.get("format") != FORMAT:
        raise DataError(f"{folder / TABLE} must describe {spec.described()}; got other values. Delete the folder.")
    _check_uids(folder, split)
    bad = [] if _sizes_fit(folder, spec, split) else list(range(len(info["crc"])))
    bad = bad or _damaged(folder, spec, split, info["crc"])
    if not bad:
        return True
    say(f"{spec.label}: {len(bad):,} of {len(info['crc']):,} chunks in {folder} are damaged and are computed again")
    good = [
        json.dumps({"chunk": i, "crc": crc, "bad": _of_chunk(info["bad"], i, spec.chunk)}, ensure_ascii=False)
        for i, crc in enumerate(info["crc"])
        if i not in set(bad)
    ]
    if len(bad) == len(info["crc"]):
        (folder / UIDS).unlink()  # all files are made anew
    write_atomic(folder / "progress-0.jsonl", "\n".join(good) + "\n")
    (folder / TABLE).unlink()
    return False


def _check_uids(folder: Path, split: Split) -> None:
    if not np.array_equal(np.load(folder / UIDS, allow_pickle=False), split.uids()):
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
    except (OSError, ValueError):
        return False


def _damaged(folder: Path, spec: TableSpec, split: Split, checks: Sequence[int]) -> list[int]:
    """Chunks whose bytes are not those that were written; at most CHECK_AT_MOST bytes are read."""
    rows = np.load(folder / ROWS, mmap_mode="r", allow_pickle=False)
    text = spec.kind == "text"
    notes = np.load(folder / NOTES, mmap_mode="r", allow_pickle=False) if text else None
    offsets = np.load(folder / OFFSETS, allow_pickle=False) if text else None
    found = []
    for i in range(0, len(checks), max(1, -(-rows.nbytes // CHECK_AT_MOST))):
        start, stop = i * spec.chunk, min((i + 1) * spec.chunk, len(split))
        first, count = _span(spec, offsets, start, stop)
        check = zlib.crc32(rows[first : first + count].tobytes())
        if notes is not None:
            check = zlib.crc32(notes[first : first + count].tobytes(), check)
        if check != checks[i]:
            found.append(i)
    return found


def _progress(folder: Path) -> dict[int, dict[str, Any]]:
    """What is noted of each chunk, by all ranks of all attempts; a torn line is no line."""
    done = {}
    for path in sorted(folder.glob("progress-*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                note = json.loads(line)
                done[int(note["chunk"])] = {"crc": int(note["crc"]), "bad": dict(note["bad"])}
            except (ValueError, KeyError, TypeError):
                continue
    return done


def _span(spec: TableSpec, offsets: np.ndarray | None, start: int, stop: int) -> tuple[int, int]:
    """(first row, number of rows) of records start to stop."""
    if offsets is None:
        return start * spec.copies, (stop - start) * spec.copies
    return int(offsets[start]), int(offsets[stop] - offsets[start])


def _of_chunk(bad: dict[str, str], chunk: int, size: int) -> dict[str, str]:
    return {i: why for i, why in bad.items() if int(i) // size == chunk}


def _header(path: Path) -> int:
    """Where the numbers of an .npy file begin."""
    return int(np.load(path, mmap_mode="r", allow_pickle=False).offset)


def _write_at(file: Any, place: int, raw: bytes, folder: Path) -> None:
    """Not through the map: a full disk is an error then, not the end of the process."""
    try:
        file.seek(place)
        file.write(raw)
        file.flush()
    except OSError as error:
        raise DataError(f"{folder} must take {len(raw):,} bytes more; got {error.strerror}. Free some room.") from None


def _save_array(path: Path, array: np.ndarray) -> None:
    part = path.with_name(f".{path.name}.part.npy")
    np.save(part, array)
    os.replace(part, path)


def _readable(size: float) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.2f} MB"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One run at a time builds a table; another one that wants the same waits and then finds it."""
    try:
        import fcntl
    except ImportError:  # no such locks here: two runs would compute the same rows twice, which harms nobody
        yield
        return
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is computing {folder}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a disk without locks
            pass
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _shared_errors(everyone: bool = False) -> Iterator[None]:
    """An error of one rank inside the block ends all of them, so that none waits for it for ever.

    `everyone`: any rank may fail inside; else only the main one does.
    """
    error: BaseException | None = None
    try:
        yield
    except (DiptychError, OSError) as caught:
        error = caught
    failed = any(gather_objects(error is not None)) if everyone else broadcast_object(error is not None)
    if error is not None:
        raise error
    if failed:
        raise DataError("all processes must build the table; another one failed, and says why.")
