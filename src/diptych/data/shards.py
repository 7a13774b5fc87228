"""Shards: plain WebDataset tars that every tool can read, opened through an index with mmap.

Members carry no time, owner or mode of this machine: equal records give equal bytes. What a record's members are,
`record_files` says; where they lie, `shard_index`.
"""

import hashlib
import itertools
import mmap
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64

from diptych.core.errors import ShardError
from diptych.core.files import write_atomic
from diptych.core.record import Record
from diptych.data.archive import CheckedTarInfo
from diptych.data.decode import MAX_BYTES, BadImage, probe
from diptych.data.record_files import (
    MODALITY_OF,
    files_of_record,
    is_read,
    member_key,
    parse_json,
    record_from_files,
    split_name,
)
from diptych.data.shard_index import Index, IndexBuilder, index_path

_BLOCK = 512
_TAIL = tarfile.RECORDSIZE


class ShardWriter:
    """Writes records into numbered tars with their indexes, a new tar every `records_per_shard` records or
    `bytes_per_shard` bytes. A tar has its name only once it is whole."""

    def __init__(
        self, directory: str | os.PathLike[str], records_per_shard: int = 10_000, bytes_per_shard: int = 1 << 30
    ):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.records_per_shard, self.bytes_per_shard = records_per_shard, bytes_per_shard
        self.shards: list[str] = []
        self.records = self.bytes = 0
        self._file: BinaryIO | None = None
        self._builder = IndexBuilder()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()
            self._part().unlink(missing_ok=True)

    def add(self, record: Record, sizes: Sequence[tuple[int, int]] = (), uid: str | None = None) -> str:
        """Append a record and return the name of its shard. `sizes` are the (width, height) of its images in order."""
        if self._file is not None and (
            len(self._builder.image_ids) >= self.records_per_shard or self._file.tell() >= self.bytes_per_shard
        ):
            self._finish()
        if self._file is None:
            self.shards.append(f"{len(self.shards):05d}.tar")
            self._builder = IndexBuilder()
            self._file = open(self._part(), "wb")  # noqa: SIM115 - open across calls, closed by _finish
        key = member_key(record.key)
        remaining = list(sizes)
        members = []
        for suffix, data, modality in files_of_record(record, key):
            size = remaining.pop(0) if modality == "image" and remaining else (0, 0)
            members.append((suffix, self._write(f"{key}.{suffix}", data), len(data), size))
        self._builder.add(key, uid or record.uid, image_id(record), members)
        self.records += 1
        return self.shards[-1]

    def close(self) -> None:
        """Finish the last shard."""
        if self._file is not None:
            self._finish()

    def _part(self) -> Path:
        return self.directory / f".{self.shards[-1]}.part"

    def _write(self, name: str, data: bytes) -> int:
        assert self._file is not None
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o644, 0
        self._file.write(info.tobuf(tarfile.USTAR_FORMAT))
        offset = self._file.tell()
        self._file.write(data)
        self._file.write(b"\0" * (-len(data) % _BLOCK))
        self.bytes += len(data)
        return offset

    def _finish(self) -> None:
        assert self._file is not None
        self._file.write(b"\0" * (2 * _BLOCK))
        self._file.write(b"\0" * (-self._file.tell() % _TAIL))
        total = self._file.tell()
        self._file.close()
        self._file = None
        path = self.directory / self.shards[-1]
        os.replace(self._part(), path)
        write_atomic(index_path(path), self._builder.to_bytes(total))


class ShardReader:
    """Random access to the records of one tar through its index. The tar is mapped when first read; `close` unmaps it,
    and the next read maps it again. Copies made by fork or pickle work by themselves."""

    def __init__(self, tar: str | os.PathLike[str], index: Index | None = None) -> None:
        self.path = Path(tar)
        self.index = index or Index.load(index_path(self.path))
        self._map: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    @property
    def is_open(self) -> bool:
        """Whether the tar is mapped now."""
        return self._map is not None

    def close(self) -> None:
        """Unmap the tar."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def record(self, row: int) -> Record:
        """The record in a row, its payloads copied out of the map."""
        self._in_range(row)
        files = {suffix: self._read(m) for suffix, m in self.index.members(row)}
        return record_from_files(self.index.key(row), files, str(self.path))

    def sidecar(self, row: int) -> tuple[dict[str, Any], str | None]:
        """The json of a row ({} where there is none) and its txt, without touching the image."""
        self._in_range(row)
        found = {suffix: m for suffix, m in self.index.members(row) if suffix in ("json", "txt")}
        where = f"{self.path}#{self.index.key(row)}"
        raw = self._read(found["json"]) if "json" in found else None
        text = self._read(found["txt"]).decode(errors="replace") if "txt" in found else None
        return (parse_json(raw, where) if raw is not None else {}), text

    def image(self, row: int, number: int = 0) -> tuple[int, bytes] | None:
        """(member number, encoded bytes) of a row's image of that number, or None."""
        self._in_range(row)
        m = self.image_member(row, number)
        return None if m is None else (m, self._read(m))

    def image_member(self, row: int, number: int = 0) -> int | None:
        """The member number of a row's image of that number, or None. Images lie in the order of their segments."""
        images = (m for s, m in self.index.members(row) if MODALITY_OF.get(s.rpartition(".")[2]) == "image")
        return next(itertools.islice(images, number, None), None)

    def image_counts(self) -> Int64[np.ndarray, " n"]:
        """How many image members each row has, by the index alone."""
        kinds = np.array([MODALITY_OF.get(s.rpartition(".")[2]) == "image" for s in self.index.suffixes])
        before = np.concatenate([[0], np.cumsum(kinds[self.index.suffix], dtype=np.int64)])
        return np.asarray(before[self.index.first[1:]] - before[self.index.first[:-1]])

    def _in_range(self, row: int) -> None:
        if not 0 <= row < len(self.index):
            raise IndexError(f"row must be in [0, {len(self.index)}); got {row}")

    def _read(self, member: int) -> bytes:
        if self._map is None:
            self._open()
        assert self._map is not None
        start = int(self.index.offset[member])
        return self._map[start : start + int(self.index.size[member])]

    def _open(self) -> None:
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != self.index.tar_bytes:
                    raise ShardError(
                        f"{self.path} must have {self.index.tar_bytes:,} bytes, as its index says; got {size:,}. "
                        + ("It was cut off: copy" if size < self.index.tar_bytes else "It was changed: copy")
                        + " it again, or pack the dataset again."
                    )
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ShardError(
                f"{self.path} must be a tar that can be read; got {error.strerror}. Copy it again, or pack again."
            ) from None


def index_tar(tar: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Index:
    """The index of a foreign WebDataset tar (img2dataset's, say), written beside it or to `out`, so that it can be
    used as it is. Reads the tar once. Samples without an image, audio, video or text are left out."""
    tar = Path(tar)
    builder = IndexBuilder()
    for key, files in read_tar(tar):
        payload = {suffix: data for suffix, (_, data) in files.items()}
        record = record_from_files(key, payload, str(tar))
        if not record.segments:
            continue
        members = [(s, offset, len(data), _image_size(s, data)) for s, (offset, data) in files.items()]
        builder.add(key, record.uid, image_id(record), members)
    path = Path(out) if out is not None else index_path(tar)
    write_atomic(path, builder.to_bytes(tar.stat().st_size))
    return Index.load(path)


def read_tar(tar: Path) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """(key, {suffix: (offset, content)}) of each sample of a plain tar whose members of one sample lie together."""
    key, files = "", dict[str, tuple[int, bytes]]()
    try:
        with tarfile.open(tar, "r:", tarinfo=CheckedTarInfo) as archive:
            for info in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header it has seen
                name, suffix = split_name(info.name)
                if not info.isreg() or name.rpartition("/")[2].startswith("__") or not is_read(suffix):
                    continue
                if name != key or suffix in files:
                    if files:
                        yield key, files
                    key, files = name, {}
                if info.size > MAX_BYTES:
                    raise tarfile.ReadError(f"{info.name} of {info.size:,} bytes, more than {MAX_BYTES:,}")
                content = archive.extractfile(info)
                assert content is not None
                data = content.read()
                if len(data) != info.size:
                    raise tarfile.ReadError("unexpected end of data")
                files[suffix] = (info.offset_data, data)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardError(f"{tar} must be a whole tar; got {error}. Copy or download it again.") from None
    if files:
        yield key, files


def image_id(record: Record) -> int:
    """A signed 64-bit hash of the record's first image (its first binary piece, or its text, where there is none)."""
    segment = record.first("image") or next((s for s in record.segments if isinstance(s.payload, bytes)), None)
    raw = segment.data if segment is not None else "\0".join(t for s in record.segments for t in s.texts).encode()
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little", signed=True)


def _image_size(suffix: str, data: bytes) -> tuple[int, int]:
    if MODALITY_OF.get(suffix.rpartition(".")[2]) != "image":
        return (0, 0)
    try:
        header = probe(data)
        return header.width, header.height
    except BadImage:
        return (0, 0)
