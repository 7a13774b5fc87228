"""The files below a folder that a collector reads: by their endings, in a stable order, and none that lies outside."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from diptych.core.errors import DataError
from diptych.data.sources.source import Reject

MAX_DEPTH = 64


def files_below(root: Path, suffixes: Collection[str]) -> Iterator[tuple[str, Path] | Reject]:
    """(name relative to `root` with "/", path) of each file with one of the endings (".pdf"), folder by folder, sorted.

    `root` may be one file. Hidden files and folders are passed by. Links to folders are not followed, and one to a file
    that lies outside `root` is rejected: a folder from a stranger's archive must not lead to one's own files.
    Raises DataError where nothing is there.
    """
    if root.is_file():
        yield root.name, root
        return
    if not root.is_dir():
        raise DataError(
            f"what is collected must be a file or a folder; got {root}, which is not there. Check the path."
        )
    yield from _walk(root, "", os.path.realpath(root), suffixes, MAX_DEPTH)


def _walk(
    root: Path, inner: str, home: str, suffixes: Collection[str], depth: int
) -> Iterator[tuple[str, Path] | Reject]:
    try:
        with os.scandir(root / inner) as scan:
            entries = sorted((e for e in scan if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        yield Reject(inner or ".", f"a folder must be readable; got {error.strerror}.", "unreadable", str(root / inner))
        return
    for entry in entries:
        name = f"{inner}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if depth:
                yield from _walk(root, f"{name}/", home, suffixes, depth - 1)
            else:
                yield Reject(name, f"folders must nest at most {MAX_DEPTH} deep; got more.", "too_deep", entry.path)
        elif os.path.splitext(entry.name)[1].lower() in suffixes:
            if entry.is_symlink() and not is_inside(entry.path, home):
                message = f"a file must lie in {root}; {name} is a link to one outside. Copy it there."
                yield Reject(name, message, "outside_root", entry.path)
            else:
                yield name, Path(entry.path)


def is_inside(path: str | os.PathLike[str], home: str) -> bool:
    """Whether a path, its links followed, lies in the folder `home` (a real path)."""
    try:
        return os.path.realpath(path).startswith(os.path.join(home, ""))
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False
