"""What a source is: records in a stable order, from wherever the user keeps them. One file of this folder each.

A source never stops at a bad record: it yields a `Reject` in its place, so that kept + rejected = seen. It reads
lazily; a million rows must not need their size in memory.
"""

import importlib
import inspect
import itertools
import os
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from diptych.core.config import Config
from diptych.core.errors import ConfigError, DataError
from diptych.core.record import Record
from diptych.data import sources as folder
from diptych.data.decode import MAX_BYTES
from diptych.data.located import whole_file

IMAGE_SUFFIXES = frozenset(
    {
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff", "svg", "avif"),
        *("heic", "heif", "jp2", "ico", "psd", "jxl", "tga"),
    }
)
"""File endings that mean an image to a person, so that those we cannot read are rejected by name, not overlooked."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}
"""What people call their splits, and what we do."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that the source cannot give: its key, a sentence, a short reason, where it is, its bytes if known."""

    key: str
    message: str
    reason: str = "source"
    where: str = ""
    size: int = 0


class SourceConfig(Config):
    """Base of every source's settings; those that `open_source` finds have a `path`."""

    abstract: ClassVar[bool] = True

    def build(self) -> "Source":
        """The source."""
        raise NotImplementedError


class Source(ABC):
    """Records (or rejects) in an order that is the same each time, with unique keys; `records` may be called again.

    Bytes that a file or a tar holds as they are come as `Located`, so that they can be read again one by one.
    """

    config: SourceConfig | None = None
    images_only: bool = False
    """True where records need no caption."""
    max_bytes: int = MAX_BYTES
    """Larger files are rejected unread; `pack` sets it."""

    @property
    def name(self) -> str:
        """What this source is, for people and for dataset.json."""
        path = getattr(self.config, "path", None)
        return str(path) if path is not None else type(self).__name__

    @abstractmethod
    def records(self) -> Iterator[Record | Reject]:
        """Every record of the source, in its order."""

    def count(self) -> int | None:
        """How many records there will be, where that costs nothing to know."""
        return None

    def where(self, key: str) -> str:
        """Where the record with this key is, as a person would look for it."""
        return f"{self.name}: {key}"


class FromRecords(Source):
    """A source made of a function that returns records: for tests, notebooks and generated data."""

    def __init__(self, make: Callable[[], Iterable[Record | Reject]], name: str = "records", images_only: bool = False):
        self._make, self._name, self.images_only = make, name, images_only

    @property
    def name(self) -> str:
        """The name that was given."""
        return self._name

    def records(self) -> Iterator[Record | Reject]:
        """What the function returns, from its start."""
        return iter(self._make())


def read_file(path: Path, key: str, max_bytes: int) -> bytes | Reject:
    """The bytes of a file, or why they cannot be had; too large a file is not read."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            return Reject(key, f"an image must be a file; got the folder {path}.", "not_a_file", str(path))
        if not path.is_file():
            return Reject(key, f"an image must be an ordinary file; got {path}.", "not_a_file", str(path))
        if size > max_bytes:
            message = f"an image must have at most {max_bytes:,} bytes; got {size:,}. Shrink it or raise max_bytes."
            return Reject(key, message, "too_many_bytes", str(path), size)
        return whole_file(path)
    except FileNotFoundError:
        return Reject(key, f"an image must be there; {path} is not.", "file_not_found", str(path))
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        return Reject(key, f"an image must be readable; got {words} for {path}.", "unreadable", str(path))


@dataclass(frozen=True, slots=True)
class Look:
    """What lies at a path: the file's suffix, or the names and suffixes in the upper floors of a folder."""

    path: Path
    is_file: bool
    suffix: str = ""
    names: frozenset[str] = frozenset()
    suffixes: frozenset[str] = frozenset()


def look(path: Path, entries: int = 20_000) -> Look:
    """A quick look, at most five folders deep and `entries` entries long, so that a source can say "that is mine"."""
    if not path.is_dir():
        return Look(path, path.is_file(), path.name.lower().rpartition(".")[2])
    names, suffixes = set[str](), set[str]()
    for name in itertools.islice(_walk(path, 5), entries):
        if name.count("/") == 0:
            names.add(name)
        suffixes.add(name.lower().rpartition(".")[2])
    return Look(path, False, "", frozenset(names), frozenset(suffixes))


def _walk(path: Path, depth: int) -> Iterator[str]:
    """Relative names, breadth first so that a huge subfolder cannot hide what lies above it."""
    level = [""]
    for _ in range(depth):
        below: list[str] = []
        for prefix in level:
            try:
                with os.scandir(path / prefix) as scan:
                    for entry in scan:
                        if entry.name.startswith("."):
                            continue
                        if entry.is_dir():
                            if len(below) < 1000:
                                below.append(f"{prefix}{entry.name}/")
                        else:
                            yield f"{prefix}{entry.name}"
            except OSError:
                continue
        level = sorted(below)


def open_source(spec: str | os.PathLike[str], **options: Any) -> Source:
    """The source that recognises a path: a folder of images, .csv .tsv .jsonl .parquet, .tar (braces allowed), a
    Hugging Face datasets folder, a .json or .jsonl of conversations or pages, or a benchmark's files as they come
    (COCO, VQA, POPE, Winoground, SugarCrepe, VALSE, ARO, CLIP_benchmark). `options` are fields of that source's config
    (``image_column="photo"``).

    Errors: DataError if nothing is there or nothing recognises it; ConfigError for an option that it does not have.
    """
    text = os.path.expanduser(os.fspath(spec))
    if "://" in text:
        raise DataError(
            f"a source must be on this machine; got {text}. Download it first (img2dataset for lists of links)."
        )
    found = look(Path(text))
    if not found.is_file and not found.path.is_dir() and "{" not in text:
        raise DataError(f"a source must be a file or a folder; got {text}, which is not there. Check the path.")
    mine = [m for m in _modules() if m.recognises(found)]
    if not mine:
        held = ", ".join(sorted(found.suffixes - {""})[:8]) or "nothing"
        what = f"a folder with {held}" if found.path.is_dir() else f"a .{found.suffix} file"
        raise DataError(
            f"a source must be a folder of images, .csv, .tsv, .jsonl, .parquet, .tar, a datasets folder, or a .json "
            f"of conversations, pages or a known benchmark; got {text}, {what}. Point at the file or folder that holds "
            "the pairs."
        )
    config = _config_of(mine[0])
    unknown = sorted(set(options) - set(config.model_fields))
    if unknown:
        raise ConfigError(
            f"an option of {mine[0].__name__.rpartition('.')[2]} must be one of "
            f"{', '.join(n for n in config.model_fields if n != 'path')}; got {', '.join(unknown)}, which would "
            f"have no effect on {text}."
        )
    return config(**{"path": text, **options}).build()


def is_taken(found: Look) -> bool:
    """Whether a source of one particular format recognises what lies there, so that a general one leaves it: one whose
    module says ``GENERAL = True``, since it takes whatever has the right endings."""
    return any(m.recognises(found) for m in _modules() if not getattr(m, "GENERAL", False))


def _modules() -> list[Any]:
    """The modules of all sources: the folder is the registry."""
    known = [m.name for m in pkgutil.iter_modules(folder.__path__) if m.name != "source"]
    return [importlib.import_module(f"{folder.__name__}.{name}") for name in known]


def _config_of(module: Any) -> type[SourceConfig]:
    for cls in vars(module).values():
        if inspect.isclass(cls) and issubclass(cls, SourceConfig) and cls.__module__ == module.__name__:
            return cls
    raise ConfigError(f"a source's file must hold a SourceConfig; {module.__name__} holds none.")
