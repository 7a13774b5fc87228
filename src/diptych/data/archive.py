"""The members of a package's archive, read straight from it: nothing is ever unpacked to disk.

Tar (plain, gzip, xz, bzip2, zstandard), zip (wheels) and Debian packages. A member whose name leaves the archive, a
device, or more bytes than the limits allow makes the whole archive refused, because no honest package holds one.
"""

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import pyarrow as pa

from diptych.core.errors import FetchError

MAX_TAR_HEADER = 1 << 20
"""Bytes of a tar's extended header (long names, attributes)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold at most; beyond it is refused."""

    member_bytes: int = 512 << 20
    total_bytes: int = 8 << 30
    """Of the whole decompressed stream, members that nobody wants included."""
    members: int = 500_000


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its name without a leading "./", and its bytes; or a link, with where it points."""

    name: str
    data: bytes
    link: str | None = None


class CheckedTarInfo(tarfile.TarInfo):
    """A tar header that may not make tarfile read a long name or its like of any size into memory, nor go back."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        extended = self.type in (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if self.size < 0 or (extended and self.size > MAX_TAR_HEADER):
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        found: tarfile.TarInfo = super()._proc_member(tar)  # the one place all headers pass
        return found


def read_members(
    path: Path, wanted: Callable[[str], bool] = lambda name: True, limits: Limits = Limits()
) -> Iterator[Member]:
    """The files and links of the archive at `path` whose names are `wanted`, in the archive's order.

    Links are named, never followed. Errors: FetchError if the archive is damaged, unsafe or beyond `limits`.
    """
    try:
        with open(path, "rb") as file:
            magic = file.read(8)
            file.seek(0)
            if magic.startswith(b"PK"):
                yield from _zip(path, file, wanted, limits)
            else:
                stream = _deb_data(file) if magic == b"!<arch>\n" else file
                yield from _tar(path, _decompressed(stream), wanted, limits)
    except (
        EOFError,
        OSError,
        lzma.LZMAError,
        zlib.error,
        tarfile.TarError,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        struct.error,
        pa.ArrowException,
    ) as error:
        raise FetchError(
            f"{path.name} must be a whole archive; got {error or type(error).__name__}. "
            f"Delete {path} and fetch it again."
        ) from None


def _tar(path: Path, stream: Any, wanted: Callable[[str], bool], limits: Limits) -> Iterator[Member]:
    counted = _Counted(stream, limits.total_bytes, path.name)
    with tarfile.open(fileobj=cast("IO[bytes]", counted), mode="r|", tarinfo=CheckedTarInfo) as tar:
        for count, info in enumerate(tar):
            tar.members = []  # type: ignore[attr-defined]  # a stream never goes back, and tarfile would remember every header
            name = _safe_name(info.name, path.name)
            _check(count, info.size, name, path.name, limits)
            if info.isdir():
                continue
            if info.issym() or info.islnk():
                if wanted(name):
                    yield Member(name, b"", link=info.linkname)
            elif not info.isreg() or info.issparse():
                raise FetchError(f"{path.name} must hold only files and folders; {name} is neither. It was not read.")
            elif wanted(name):
                file = tar.extractfile(info)
                assert file is not None
                yield Member(name, _exactly(file, info.size))
    while counted.read(1 << 20):  # to the end of the stream, whose checksum comes last
        pass


def _zip(path: Path, file: IO[bytes], wanted: Callable[[str], bool], limits: Limits) -> Iterator[Member]:
    total = 0
    with zipfile.ZipFile(file) as archive:
        for count, info in enumerate(archive.infolist()):
            name = _safe_name(info.filename, path.name)
            total += info.file_size
            _check(count, info.file_size, name, path.name, limits)
            if total > limits.total_bytes:
                raise FetchError(_too_much(path.name, limits.total_bytes))
            if info.is_dir() or not wanted(name):
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                yield Member(name, b"", link=archive.read(info).decode(errors="replace"))
            elif kind not in (0, stat.S_IFREG):
                raise FetchError(f"{path.name} must hold only files and folders; {name} is neither. It was not read.")
            else:
                with archive.open(info) as member:  # stops at the declared size, and checks the CRC
                    yield Member(name, _exactly(member, info.file_size))


def _safe_name(name: str, archive: str) -> str:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[:1] or (parts and parts[0].endswith(":")):
        raise FetchError(f"{archive} must hold only relative names without '..'; got {name!r}. It was not read.")
    return "/".join(p for p in parts if p != ".")


def _check(count: int, size: int, name: str, archive: str, limits: Limits) -> None:
    if count >= limits.members:
        raise FetchError(f"{archive} must hold at most {limits.members:,} members; got more. It was not read further.")
    if size > limits.member_bytes:
        raise FetchError(
            f"{archive} must hold members of at most {limits.member_bytes:,} bytes; "
            f"{name} has {size:,}. It was not read."
        )


def _too_much(archive: str, limit: int) -> str:
    return f"{archive} must unpack to at most {limit:,} bytes; got more. It was not read further."


def _exactly(file: Any, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError(f"a member of {size:,} bytes ends after {len(data):,}")
    return data


def _decompressed(stream: Any) -> Any:
    """`stream` without its compression, which its first bytes name."""
    head = stream.read(6)
    stream.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=stream)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(stream)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(stream)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
    return stream


def _deb_data(file: IO[bytes]) -> "_Slice":
    """The data.tar.* of a Debian package, which is an `ar` archive: 60-byte headers, members padded to even offsets."""
    file.seek(8)
    while header := file.read(60):
        if len(header) != 60 or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise EOFError("a broken ar header")
        name, size, start = header[:16].rstrip(b" /"), int(header[48:58]), file.tell()
        if name.startswith(b"data.tar"):
            return _Slice(file, start, size)
        file.seek(start + size + size % 2)
    raise EOFError("a Debian package without data.tar")


class _Slice(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0
        if file.seek(0, io.SEEK_END) < start + size:
            raise EOFError(f"a member of {size:,} bytes that the file is too short for")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(view), self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Counted:
    """A stream that ends in an error once it has given more than it may."""

    def __init__(self, stream: Any, limit: int, archive: str) -> None:
        self._stream, self._limit, self._archive, self._given = stream, limit, archive, 0

    def read(self, size: int = -1) -> bytes:
        data = bytes(self._stream.read(size))
        self._given += len(data)
        if self._given > self._limit:
            raise FetchError(_too_much(self._archive, self._limit))
        return data
