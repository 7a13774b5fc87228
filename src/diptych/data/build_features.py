"""Fills a table of vectors (`data/features.py`): in chunks, by all ranks, and after a kill from where it was.

Chunk i is computed by rank i % world. A line of ``progress-<rank>.jsonl`` says that a chunk is safely on disk; what a
kill leaves is gone on with, by as many ranks as there then are. A table is used once every chunk is noted.
"""

import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from diptych.core.distributed import barrier, broadcast_object, gather_objects, is_main, rank, world_size
from diptych.core.errors import ConfigError, DataError, DiptychError, ShardError
from diptych.core.files import cache_dir, write_atomic, write_json
from diptych.core.progress import say, track
from diptych.data.dataset import Split
from diptych.data.features import (
    FORMAT,
    NOTES,
    OFFSETS,
    ROWS,
    TABLE,
    UIDS,
    FeatureTable,
    TableSpec,
    check_uids,
    damaged_chunks,
    span,
)

SYNC_EVERY_S = 5.0
"""So much work at most is done again after a kill."""


@dataclass(frozen=True)
class Rows:
    """The rows of one chunk of records, in order; `bad` are records that could not be read, whose rows are any."""

    vectors: Float[np.ndarray, "r e"]
    notes: Int64[np.ndarray, "r 2"] | None = None
    bad: dict[int, str] = field(default_factory=dict)


Chunk = tuple[int, int]
"""Records from the first number up to, without, the second."""
Compute = Callable[[Sequence[Chunk]], Generator[Rows, None, None]]
"""The rows of each of some chunks, in their order."""


def feature_table(spec: TableSpec, split: Split, beside: Path, compute: Compute) -> FeatureTable:
    """The table that `spec` names, computed now as far as it is not there yet, by all ranks together. A collective.

    It lies in `beside`/features, or in the cache folder (``$DIPTYCH_CACHE``) where that cannot be written to. Raises
    DataError where the disk has no room, or the ranks do not share it.
    """
    with _shared_errors():
        folder = _home(spec, beside) if is_main() else None
    folder = broadcast_object(folder)
    with _locked(folder) if is_main() else nullcontext():
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
            counts = [_count(split, i) for i in track(range(len(split)), f"{spec.label}: counting captions")]
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
    mine = range(rank(), -(-len(split) // spec.chunk), world_size())
    chunks = [(i * spec.chunk, min((i + 1) * spec.chunk, len(split))) for i in mine if i not in done]
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
            with closing(compute(chunks)) as computed:
                for (start, stop), rows in zip(chunks, computed, strict=True):
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
        first, count = span(self.spec, self.offsets, start, stop)
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
            check_uids(folder, split)
        return False
    info = json.loads((folder / TABLE).read_text())
    if {k: info.get(k) for k in spec.described()} != spec.described() or info.get("format") != FORMAT:
        raise DataError(f"{folder / TABLE} must describe {spec.described()}; got other values. Delete the folder.")
    check_uids(folder, split)
    bad = damaged_chunks(folder, spec, split, info["crc"])
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


def _count(split: Split, record: int) -> int:
    try:
        pieces = split.pieces(record)
        if len(pieces.texts) > 1:
            raise ConfigError(
                f"a text tower that is computed once must have records of one text each; got {len(pieces.texts)} in "
                f"{split.key(record)}, which become one row of tokens. Set train.frozen=live."
            )
        return pieces.alternatives
    except ShardError:
        raise
    except DataError:  # a broken record says nothing, and is passed over when its turn comes
        return 0


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


def _readable(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.2f} MB"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One run at a time builds a table; another one that wants the same waits and then finds it."""
    try:
        import fcntl
    except ImportError:  # no such locks here: two runs would compute the same rows twice, which harms nobody
        yield
        return
    try:
        file = (folder / "lock").open("a")
    except OSError:  # nothing can be written there: it is whole, or an error will say so
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is computing {folder}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a disk without locks
            pass
        yield


@contextmanager
def _shared_errors(everyone: bool = False) -> Iterator[None]:
    """An error of one rank inside the block ends all of them, so that none waits for it for ever.

    `everyone`: any rank may fail inside; else only the main one does.
    """
    error: DiptychError | None = None
    try:
        yield
    except DiptychError as caught:
        error = caught
    except OSError as caught:
        error = DataError(f"a table of vectors must be read and written; got {caught}. Look at its disk.")
    failed = any(gather_objects(error is not None)) if everyone else broadcast_object(error is not None)
    if error is not None:
        raise error from None
    if failed:
        raise DataError("all processes must build the table; another one failed, and says why.")
