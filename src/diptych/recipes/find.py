"""Finds a recipe by name and resolves it with a user's settings. The folder is the registry."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path

import diptych.recipes
from diptych.checkpoints.native import find_model, model_config
from diptych.core.config import from_json, override
from diptych.core.errors import ConfigError
from diptych.train.config import RunConfig


def recipes() -> dict[str, Callable[[], RunConfig]]:
    """Every recipe by its name, ``file:function``: the public functions of the files here; each returns a RunConfig."""
    found: dict[str, Callable[[], RunConfig]] = {}
    for info in pkgutil.iter_modules(diptych.recipes.__path__):
        if info.name == "find":
            continue
        module = importlib.import_module(f"diptych.recipes.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if not name.startswith("_") and function.__module__ == module.__name__:
                found[f"{info.name}:{name}"] = function
    return found


def recipe(name: str) -> RunConfig:
    """The run that a recipe describes, named after it. Raises ConfigError with the nearest name where there is none."""
    known = recipes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"a recipe must be one of {', '.join(known)}; got {name!r}. {hint}".rstrip())
    return known[name]().replace(recipe=name)


def resolve(name: str, settings: list[str], resumed: Path | None = None) -> tuple[RunConfig, RunConfig]:
    """The recipe as it stands, and with ``field.sub=value`` settings applied; ``data=DIR`` is short for data.path.

    `resumed` is the folder of a run that goes on: with ``init=``, model and tokenizer are then those that the run noted
    when it began, and the init folder is not read again: it may have been changed or be gone.
    """
    base = recipe(name)
    full = [f"data.path={s.partition('=')[2]}" if s.startswith("data=") else s for s in settings]
    config = _initialised(base, full, resumed)
    if not config.data.path:
        raise ConfigError(
            "data must be a packed dataset, or a table or folder of pairs; got nothing. "
            "Add data=DIR; `diptych corpus get emoji` brings one to try."
        )
    return base, config


def _initialised(base: RunConfig, settings: list[str], resumed: Path | None) -> RunConfig:
    """The overridden run; with ``init=FOLDER``, model and tokenizer are that folder's unless they are set as well."""
    config = override(base, settings)
    assert isinstance(config, RunConfig)
    if not config.init:
        return config
    noted = resumed / "config.json" if resumed is not None else None
    if noted is not None and noted.is_file():
        began = from_json(noted.read_text())
        if not isinstance(began, RunConfig):
            raise ConfigError(
                f"{noted} must hold the settings of a run; got a {type(began).__name__}. Start a new run."
            )
        base = base.replace(model=began.model, tokenizer=began.tokenizer)
    else:
        folder = find_model(Path(config.init))
        base = base.replace(model=model_config(folder), tokenizer=str(folder))
    config = override(base, settings)
    assert isinstance(config, RunConfig)
    return config
