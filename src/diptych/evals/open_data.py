"""The data that an eval is run on: a packed dataset, or data as people have it, which is read as it lies."""

import os
import re
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from diptych.core.errors import DataError
from diptych.data.dataset import Dataset
from diptych.data.sources.source import open_source
from diptych.data.unpacked import Unpacked

_OPTION = re.compile(r",(?=[A-Za-z_]\w*=)")
_open: WeakValueDictionary[tuple[str, float], Unpacked] = WeakValueDictionary()
"""Unpacked data that someone holds: reading it takes a pass over its files, which is not made twice."""


def open_data(spec: str | os.PathLike[str], **options: Any) -> Dataset | Unpacked:
    """A dataset to evaluate on: `.path`, `.splits`, `.split(name)`, `.held_out(name)`, `.fingerprint`, `.info`.

    `spec` is a packed dataset's folder, or any path that `open_source` knows. Options of the source may be given, or
    stand in `spec` behind commas, so that it can be kept in a setting and opened again:
    ``coco/captions_val2017.json,image_root=photos``. Errors: DataError that names what was tried, ConfigError for an
    option that the source does not have.
    """
    path, written = split_spec(spec)
    options = {**written, **options}
    if (Path(path) / "dataset.json").is_file():
        if options:
            raise DataError(
                f"a packed dataset must be opened without options; got {', '.join(options)} for {path}. Leave them out."
            )
        return Dataset.open(path)
    name = path + "".join(f",{key}={value}" for key, value in options.items())
    try:
        source = open_source(path, **options)
    except DataError as error:
        raise DataError(f"{path} is no packed dataset (it holds no dataset.json), and {error}") from None
    state = (name, os.stat(path).st_mtime if os.path.exists(path) else 0.0)
    held = _open.get(state)
    if held is None:
        held = _open[state] = Unpacked.open(source, name)
    return held


def split_spec(spec: str | os.PathLike[str]) -> tuple[str, dict[str, str]]:
    """The path in a spec, and the options behind it. A path that is there as it is has none."""
    text = os.path.expanduser(os.fspath(spec))
    if os.path.exists(text):
        return text, {}
    path, *options = _OPTION.split(text)
    return path, dict(option.split("=", 1) for option in options)


def beside(spec: str | os.PathLike[str] | None, *names: str) -> Path | None:
    """The first file called one of `names` in the folder of a dataset (of a file, that which it lies in; of a split's
    folder, such as CLIP_benchmark's DIR/test, also the one above); None where there is none."""
    if spec is None:
        return None
    path = Path(split_spec(spec)[0])
    folder = path if path.is_dir() else path.parent
    above = [folder.parent] if (folder / "nshards.txt").is_file() else []
    return next((f / name for f in (folder, *above) for name in names if (f / name).is_file()), None)
