"""Data as it lies in people's folders, opened for evaluation without packing: what evals read of a `Dataset`.

Nothing is filtered, deduplicated or changed: a test set is kept as it is. One pass over the source notes each record's
texts, what it knows, and how the bytes of its images can be read again; the bytes themselves are dropped. What a source
cannot read again one by one (rows of parquet, base64, compressed tars) is kept in a file that vanishes with the
process.
"""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from diptych.core.config import to_dict
from diptych.core.errors import DataError
from diptych.core.files import cache_dir
from diptych.core.progress import say, track
from diptych.core.record import Record, Segment
from diptych.data.decode import MAX_BYTES, MAX_PIXELS, BadImage, probe
from diptych.data.image_header import announced_size, check_pixels, jpeg_header, known_format
from diptych.data.located import again
from diptych.data.record_files import Pieces, Words
from diptych.data.shards import image_id
from diptych.data.sources.source import SPLIT_NAMES, Reject, Source

FORMAT = "unpacked"
WHOLE = "test"
"""The split of records whose source names none: data that is only evaluated on is a test set."""


class _Held:
    """A record without the bytes of its segments: how to read these, beside everything else."""

    __slots__ = ("image_id", "key", "meta", "readers", "segments", "uid")

    def __init__(self, record: Record, uid: str, spool: "_Spool") -> None:
        self.key, self.uid, self.meta, self.image_id = record.key, uid, record.meta, image_id(record)
        self.readers: list[Callable[[], bytes]] = []
        self.segments: list[Segment] = []
        for segment in record.segments:
            if isinstance(segment.payload, bytes):
                if segment.modality == "image":
                    _look_at(segment.payload)
                self.readers.append(again(segment.payload) or spool.add(segment.payload))
                segment = Segment(segment.modality, b"", segment.format, segment.role, segment.loss)
            self.segments.append(segment)

    def images(self) -> list[Callable[[], bytes]]:
        """How to read the images, in their order."""
        binary = [s for s in self.segments if s.modality != "text"]
        return [r for s, r in zip(binary, self.readers, strict=True) if s.modality == "image"]


def _look_at(data: bytes) -> None:
    """Raise BadImage where the first bytes tell that no image can be had of these: its pixels are looked at later."""
    name = known_format(data, MAX_BYTES)
    header = jpeg_header(data) if name == "jpg" else None
    size = announced_size(data, name) if header is None else (header.width, header.height)
    if size is not None:
        check_pixels(*size, MAX_PIXELS)


class _Spool:
    """Bytes on disk for the time of the process, in a file without a name."""

    def __init__(self) -> None:
        self._file: Any = None
        self._end = 0

    def add(self, data: bytes) -> Callable[[], bytes]:
        """Keep bytes; how to have them back."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=cache_dir("unpacked"))  # noqa: SIM115  # as long as the splits live
        self._file.write(data)
        start, self._end = self._end, self._end + len(data)
        return lambda: self._read(start, len(data))

    def flush(self) -> None:
        """Make all that was added readable."""
        if self._file is not None:
            self._file.flush()

    def _read(self, start: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, start)


class UnpackedSplit:
    """The records of one split in the source's order, with what `Split` has that evals read. `path`: its dataset's."""

    def __init__(self, name: str, path: Path, held: list[_Held]) -> None:
        self.name, self.path, self._held = name, path, held

    def __len__(self) -> int:
        return len(self._held)

    def uid(self, i: int) -> str:
        """The content hash of record i, 32 hex digits: that which it would have if it were packed; of records with
        equal content all but the first have a hash of that and their number."""
        return self._at(i).uid

    def uids(self) -> UInt8[np.ndarray, "n 16"]:
        """`uid` of every record, as bytes."""
        raw = b"".join(bytes.fromhex(h.uid) for h in self._held)
        return np.frombuffer(raw, np.uint8).reshape(len(self), 16)

    def key(self, i: int) -> str:
        """The source's key of record i."""
        return self._at(i).key

    def image_id(self, i: int) -> int:
        """A signed 64-bit hash of the bytes of record i's first image."""
        return self._at(i).image_id

    def image_ids(self, records: Int64[np.ndarray, " b"] | None = None) -> Int64[np.ndarray, " n"]:
        """`image_id` of every record, or of some."""
        rows = range(len(self)) if records is None else records.tolist()
        return np.array([self._held[i].image_id for i in rows], dtype=np.int64)

    def image_size(self, i: int) -> tuple[int, int]:
        """(width, height) in pixels of record i's first image, upright, read from it; (0, 0) if there is none."""
        if not self._at(i).images():
            return 0, 0
        header = probe(self.image_bytes(i))
        return header.width, header.height

    def record(self, i: int) -> Record:
        """Record i, its bytes read anew."""
        held = self._at(i)
        readers = iter(held.readers)
        segments = [
            s if s.modality == "text" else Segment(s.modality, next(readers)(), s.format, s.role, s.loss)
            for s in held.segments
        ]
        return Record(held.key, tuple(segments), held.meta)

    def captions(self, i: int) -> tuple[str, ...]:
        """The alternatives of record i's first text; () if it has none."""
        return self.texts(i)[0]

    def texts(self, i: int) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
        """(captions, weights) of record i."""
        text = next((s for s in self._at(i).segments if s.modality == "text"), None)
        return ((), None) if text is None else (text.texts, text.weights)

    def pieces(self, i: int) -> Pieces:
        """What record i says and where its images stand in it."""
        texts: list[Words] = []
        images: list[int] = []
        for s in self._at(i).segments:
            if s.modality == "text" and s.texts:
                texts.append(Words(s.texts, s.weights, s.role, s.loss))
            elif s.modality == "image":
                images.append(len(texts))
        return Pieces(tuple(texts), tuple(images))

    def meta(self, i: int) -> dict[str, Any]:
        """Whatever else the source knew about record i."""
        return dict(self._at(i).meta)

    def image_bytes(self, i: int, number: int = 0) -> bytes:
        """The encoded bytes of record i's image (of several, the one of that number). Raises DataError if it has
        none, or its file is gone."""
        images = self._at(i).images()
        if not 0 <= number < len(images):
            which = "an image" if number == 0 else f"an image of number {number}"
            raise DataError(f"record {i} of {self.name} ({self.key(i)}) must hold {which}; it holds none.")
        return images[number]()

    def images_of(self, i: int) -> int:
        """How many images record i holds; 1 for one that should hold an image and does not."""
        return max(1, len(self._at(i).images()))

    def image_counts(self) -> Int64[np.ndarray, " n"]:
        """How many images each record has."""
        return np.array([len(h.images()) for h in self._held], dtype=np.int64)

    def _at(self, i: int) -> _Held:
        if not 0 <= i < len(self._held):
            raise IndexError(f"a record of {self.name} must be in [0, {len(self)}); got {i}")
        return self._held[i]


class Unpacked:
    """A source opened for evaluation: `path` (what it is called, and can be opened by again), `splits`, `info`, and
    `rejects`, the records that could not be read, by name."""

    def __init__(
        self, path: Path, splits: dict[str, UnpackedSplit], info: dict[str, Any], rejects: list[Reject]
    ) -> None:
        self.path, self.splits, self.info, self.rejects = path, splits, info, rejects

    @classmethod
    def open(cls, source: Source, path: str | os.PathLike[str] = "") -> "Unpacked":
        """Every record of `source` that can be read; what cannot is counted and said. Raises DataError if none can.

        It takes as long as reading the files once: the fingerprint and the uids are over their content.
        """
        held: dict[str, list[_Held]] = {}
        rejects: list[Reject] = []
        seen, spool = 0, _Spool()
        uids = Counter[str]()
        for item in track(source.records(), f"read {source.name}", source.count()):
            seen += 1
            entry = item if isinstance(item, Reject) else _hold(item, uids, spool)
            if isinstance(entry, Reject):
                rejects.append(entry)
            else:
                held.setdefault(_split_of(entry.meta), []).append(entry)
        spool.flush()
        if not held:
            first = f": {_where(rejects[0], source)}: {rejects[0].message}" if rejects else "."
            raise DataError(f"{source.name} must hold records; got none that can be read of {seen:,}{first}")
        reasons = Counter(r.reason for r in rejects)
        _say_rejects(source, seen, rejects, reasons)
        order = sorted(held, key=lambda n: (["train", "val", "test"].index(n) if n in SPLIT_NAMES.values() else 3, n))
        path = Path(path or source.name)
        splits = {name: UnpackedSplit(name, path, held[name]) for name in order}
        info = {
            "format": FORMAT,
            "splits": {name: {"records": len(split)} for name, split in splits.items()},
            "seen": seen,
            "kept": seen - len(rejects),
            "rejected": dict(sorted(reasons.items())),
            "source": {"name": source.name, "config": to_dict(source.config)},
            "fingerprint": _fingerprint(held),
        }
        return cls(path, splits, info, rejects)

    def split(self, name: str) -> UnpackedSplit:
        """The split called `name`. Raises DataError that says which there are."""
        if name not in self.splits:
            raise DataError(f"a split of {self.path} must be one of {', '.join(self.splits)}; got {name!r}.")
        return self.splits[name]

    def held_out(self, name: str = "") -> str:
        """The name of the split to judge on: `name` if given, else val, else test, else the first."""
        return name or next((n for n in ("val", "test") if n in self.splits), next(iter(self.splits)))

    @property
    def fingerprint(self) -> str:
        """32 hex digits over every record of every split in order, with all that is known of it (labels, wrong
        captions, people's answers): equal fingerprint, equal test."""
        return str(self.info["fingerprint"])


def _hold(record: Record, uids: "Counter[str]", spool: _Spool) -> _Held | Reject:
    """A record as it is noted, or why it is of no use to any eval."""
    try:
        for text in (t for s in record.segments if s.modality == "text" for t in s.texts):
            text.encode()
        json.dumps(record.meta, allow_nan=False).encode()
        uid = record.uid
        held = _Held(record, _unique(uid, uids[uid]), spool)
    except UnicodeEncodeError:
        return Reject(record.key, "a text must be valid Unicode; one is not. Name the file's encoding.", "bad_text")
    except (TypeError, ValueError, RecursionError) as error:
        return Reject(record.key, f"a record's meta must be plain JSON values; got {error}.", "bad_meta")
    except BadImage as error:
        return Reject(record.key, error.message, error.reason)
    uids[uid] += 1
    return held


def _unique(uid: str, before: int) -> str:
    """The hash of a record of which as many with equal content came before."""
    return hashlib.blake2b(f"{uid}#{before}".encode(), digest_size=16).hexdigest() if before else uid


def _split_of(meta: dict[str, Any]) -> str:
    declared = str(meta.get("split") or WHOLE).lower()
    return SPLIT_NAMES.get(declared, declared)


def _where(reject: Reject, source: Source) -> str:
    return reject.where or source.where(reject.key)


def _say_rejects(source: Source, seen: int, rejects: list[Reject], reasons: "Counter[str]") -> None:
    if rejects:
        why = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
        first = rejects[0]
        say(
            f"{len(rejects):,} of {seen:,} records of {source.name} cannot be read and are left out: {why}. "
            f"The first: {_where(first, source)}: {first.message}"
        )


def _fingerprint(held: dict[str, list[_Held]]) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for name in sorted(held):
        digest = hashlib.blake2b(digest_size=16)
        for one in held[name]:
            digest.update(bytes.fromhex(one.uid))
            digest.update(json.dumps(one.meta, sort_keys=True).encode())
        whole.update(name.encode() + b"\0" + digest.digest())
    return whole.hexdigest()
