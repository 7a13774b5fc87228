"""The samples of a foreign WebDataset tar, read as a stream: nothing is ever extracted, unpickled or run."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from diptych.data.archive import CheckedTarInfo
from diptych.data.located import part_of_file
from diptych.data.record_files import MODALITY_OF, split_name
from diptych.data.sources.source import IMAGE_SUFFIXES, Reject

ALIASES = {"jpeg": "jpg", "caption": "txt", "text": "txt", "tif": "tiff"}
MAX_TEXT_BYTES = 16 << 20

Sample = tuple[str, dict[str, bytes]]
"""A sample's key and its members by their suffixes."""


def read_samples(tar: Path, prefix: str, wanted: Callable[[str], bool], max_bytes: int) -> Iterator[Sample | Reject]:
    """The samples of a tar (plain or compressed) in order, with the members whose suffix is `wanted`; keys begin with
    `prefix`. What is unsafe, too large or damaged is rejected by name; nothing after a damaged place is read.

    Members of a plain tar come as `Located`: they can be read again one by one.
    """
    name, files, found = "", dict[str, bytes](), None
    plain = _is_plain(tar)
    try:
        with tarfile.open(tar, "r|*", tarinfo=CheckedTarInfo) as archive:
            for info in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header it has seen
                key, suffix = split_name(info.name)
                suffix = ALIASES.get(suffix, suffix)
                if info.isdir() or key.rpartition("/")[2].startswith("__"):
                    continue
                if key != name or suffix in files:
                    if name:
                        yield found or (f"{prefix}{name}", files)
                    name, files, found = key, {}, None
                problem = _problem(info, suffix, wanted(suffix), max_bytes)
                if problem is not None:
                    found = found or Reject(f"{prefix}{key}", problem[1], problem[0], f"{tar}#{info.name}", info.size)
                elif wanted(suffix):
                    data = _content(archive, info)
                    files[suffix] = part_of_file(data, tar, info.offset_data) if plain and not info.sparse else data
    except (tarfile.TarError, EOFError, OSError) as error:
        message = f"a tar must be whole; this one breaks in or after sample {name!r} ({error}). Download it again."
        yield Reject(f"{prefix}{name}-rest", message, "damaged_file", str(tar))
        return
    if name:
        yield found or (f"{prefix}{name}", files)


def _problem(info: tarfile.TarInfo, suffix: str, wanted: bool, max_bytes: int) -> tuple[str, str] | None:
    if not info.isreg() or info.name.startswith("/") or ".." in info.name.split("/"):
        return "unsafe_member", f"a member must be an ordinary file inside the tar; got {info.name!r}. Pack it anew."
    end = suffix.rpartition(".")[2]
    limit = max_bytes if end in MODALITY_OF or end in IMAGE_SUFFIXES else MAX_TEXT_BYTES
    if wanted and info.size > limit:
        return "too_many_bytes", f"a member must have at most {limit:,} bytes; {info.name!r} has {info.size:,}."
    return None


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    data = file.read() if file is not None else b""
    if len(data) != info.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


def _is_plain(tar: Path) -> bool:
    """Whether a tar is not compressed, so that its offsets are those of the file (POSIX.1-1988: the header's magic)."""
    try:
        with open(tar, "rb") as file:
            return file.read(512)[257:262] == b"ustar"
    except OSError:
        return False
