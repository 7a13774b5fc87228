"""Files that are either whole or not there."""

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

NEW = ".new-"
"""Stands in the names of what is not whole yet, before eight random letters: ``.NAME.new-x3k9_a0b``."""


def cache_dir(*parts: str) -> Path:
    """A folder below ``$DIPTYCH_CACHE``, else ``$XDG_CACHE_HOME/diptych``, else ``~/.cache/diptych``."""
    root = os.environ.get("DIPTYCH_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "diptych"
    )
    path = Path(root).joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` beside `path`, sync it, and rename it into place: a kill leaves the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode() if isinstance(data, str) else data
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{NEW}")
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(raw)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sweep(folder: Path, name: str = "") -> None:
    """Remove what a `write_atomic` that was killed has left in `folder` (of the file `name` alone, if it is given),
    where no other process writes now."""
    for left in folder.glob(f".{glob.escape(name) or '*'}{NEW}????????"):
        if left.is_file():
            left.unlink(missing_ok=True)


@contextmanager
def folder_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `path`, gone when the block ends.

    What processes that were killed have left of such is removed first. Whether one still works in its folder, the
    folder's lock tells; where there are no locks (Windows, some network disks) nothing is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}{NEW}"
    for left in path.parent.glob(f"{glob.escape(prefix)}????????"):
        with _locked(left, wait=False) as held:
            if held:
                shutil.rmtree(left, ignore_errors=True)
    with ExitStack() as stack:
        while True:
            made = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix))
            stack.callback(shutil.rmtree, made, ignore_errors=True)
            stack.enter_context(_locked(made, wait=True))
            if made.is_dir():  # else another process took it for a left one, before it was locked
                break
        yield made


@contextmanager
def new_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` when the block ends well, replacing what was there. A kill
    leaves the old one or the new one, if need be under a name from which the next call brings it back."""
    path = Path(path)
    old = path.with_name(f".{path.name}.replaced")
    with folder_beside(path) as made:
        if old.is_dir() and not path.exists():
            os.replace(old, path)
        yield made
        os.chmod(made, 0o755)
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            os.replace(path, old)
        os.replace(made, path)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[bool]:
    """Whether the lock of a folder is this process's until the block ends; `wait` for whoever has it."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:
            held = False
        yield held
    finally:
        os.close(handle)


def sha256(path: str | os.PathLike[str], update: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, as hex."""
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            h.update(chunk)
            if update is not None:
                update(len(chunk))
    return h.hexdigest()
