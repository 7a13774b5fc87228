"""A packed dataset for whatever path a user gives: the folder itself, or one packed once into the cache."""

import hashlib
import os
from pathlib import Path

from diptych.core.distributed import broadcast_object, is_main
from diptych.core.errors import DataError
from diptych.core.files import cache_dir
from diptych.core.progress import say
from diptych.data.dataset import Dataset
from diptych.data.loader import LoaderConfig
from diptych.data.mixture import open_datasets
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import open_source


def packed(path: str | Path, context_length: int = 77) -> Path:
    """The dataset folder for `path`. A table, folder or tar of pairs is packed with defaults, and that is said.

    The packed copy is found again by the source's path, size and time of change, a folder's by those of all folders
    in it. Files that change in place are not noticed, so that a copy in use is always named. Raises DataError where
    nothing is.
    """
    path = Path(path).expanduser()
    if (path / "dataset.json").exists():
        return path
    if not path.exists():
        raise DataError(
            f"data must be a packed dataset or a source of pairs; got {path}, which is not there. "
            "Pack one with `diptych pack SOURCE --out DIR`, or fetch one with `diptych corpus get emoji`."
        )
    name = hashlib.blake2b(f"{_state(path)}\0{context_length}".encode(errors="replace"), digest_size=6).hexdigest()
    out = cache_dir("packed") / f"{path.stem}-{name}"
    if not (out / "dataset.json").exists():
        say(f"{path} is not packed yet: packing it once into {out} (`diptych pack` gives you the choices)")
        say(str(pack(open_source(str(path)), out, PackConfig(context_length=context_length))))
    else:
        say(f"{path}: using the copy packed before in {out}; if files in it have changed since, delete that")
    return out


def open_ready(config: LoaderConfig, context_length: int = 77) -> Dataset:
    """The dataset or the mixture that a run reads, its parts packed first where they are not yet (by the main rank).

    A collective: every rank calls it.
    """
    found = {path: packed(path, context_length) for path in dict.fromkeys(config.paths)} if is_main() else None
    folders = broadcast_object(found)
    where = [folders[path] for path in config.paths]
    return open_datasets(where, config.mixture, config.split, config.selection)


def _state(path: Path) -> str:
    """What changes when files come or go: size and time of a file, or of each folder below a folder."""
    folders = sorted(folder for folder, _, _ in os.walk(path)) if path.is_dir() else []
    stats = [(p.stat().st_size, p.stat().st_mtime_ns) for p in (path, *map(Path, folders))]
    return f"{path.resolve()}\0{stats}"
