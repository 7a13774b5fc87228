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

_opened: WeakValueDictionary[str, Unpacked] = WeakValueDictionary()
"""What is open in this process: reading takes a pass over every file, and each eval asks anew."""

_OPTION = re.compile(r",(?=[A-Za-z_]\w*=)")


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
    try:
        source = open_source(path, **options)
    except DataError as error:
        raise DataError(f"{path} is no packed dataset (it holds no dataset.json), and {error}") from None
    spec = path + "".join(f",{name}={value}" for name, value in options.items())
    key = os.path.abspath(path) + spec
    found = _opened.get(key)
    if found is None:
        found = _opened[key] = Unpacked.open(source, spec)
    return found


def split_spec(spec: str | os.PathLike[str]) -> tuple[str, dict[str, str]]:
    """The path in a spec, and the options behind it. A path that is there as it is has none."""
    text = os.path.expanduser(os.fspath(spec))
    if os.path.exists(text):
        return text, {}
    path, *options = _OPTION.split(text)
    return path, dict(option.split("=", 1) for option in options)
