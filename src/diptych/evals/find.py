"""Finding an eval by its file's name, and the place where its result is kept."""

import difflib
import importlib
import inspect
import pkgutil
from os import PathLike
from pathlib import Path
from typing import Any

from diptych import evals
from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, DiptychError
from diptych.core.files import write_atomic
from diptych.evals.eval import EvalConfig, EvalResult


def names() -> tuple[str, ...]:
    """The evals that there are: the files of this folder that hold an EvalConfig."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(evals.__path__) if _config_class(m.name) is not None))


def config_for(name: str, **settings: Any) -> EvalConfig:
    """The settings of the eval called `name`, some of them given."""
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
        raise ConfigError(f"a task must name an eval; got {name!r}. {hint}")
    found = _config_class(name)
    assert found is not None
    return found(**settings)


def result_path(result: EvalResult, run: str | PathLike[str]) -> Path:
    """Where a result is kept: RUN/evals/<task>-<split>.json, whichever part of the run was evaluated.

    A checkpoint's result carries its number; a result on another dataset than the file's, that dataset's name.
    """
    folder, suffix = Path(run), ""
    if folder.parent.name == "checkpoints":
        folder, suffix = folder.parent.parent, f"-{folder.name}"
    elif folder.name == "model" and (folder.parent / "config.json").is_file():
        folder = folder.parent
    path = folder / "evals" / f"{result.task}-{result.split}{suffix}.json"
    if path.is_file() and _data_of(path) != result.data:
        path = path.with_name(f"{result.task}-{Path(result.data).name or 'own'}-{result.split}{suffix}.json")
    return path


def save(result: EvalResult, run: str | PathLike[str]) -> Path:
    """Write a result where `result_path` says, whole or not at all."""
    path = result_path(result, run)
    write_atomic(path, to_json(result))
    return path


def _config_class(name: str) -> type[EvalConfig] | None:
    module = importlib.import_module(f"diptych.evals.{name}")
    for cls in vars(module).values():
        if inspect.isclass(cls) and issubclass(cls, EvalConfig) and cls.__module__ == module.__name__:
            return None if cls.abstract else cls
    return None


def _data_of(path: Path) -> str | None:
    try:
        return str(from_json(path.read_text("utf-8")).data)
    except (DiptychError, OSError, UnicodeDecodeError, AttributeError):
        return None
