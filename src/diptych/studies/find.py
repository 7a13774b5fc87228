"""Finding a study by its file's name."""

import difflib
import importlib
import inspect
import pkgutil
from typing import Any

from diptych import studies as room
from diptych.core.config import override
from diptych.core.errors import ConfigError
from diptych.studies.study import Study, StudyConfig


def studies() -> dict[str, type[StudyConfig]]:
    """The settings of each study that there is: the files of this folder that hold a StudyConfig."""
    found = {m.name: _config_class(m.name) for m in pkgutil.iter_modules(room.__path__)}
    return {name: cls for name, cls in sorted(found.items()) if cls is not None}


def study(name: str, settings: list[str]) -> Study:
    """The study called `name`, with ``field=value`` settings."""
    known = studies()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
        raise ConfigError(f"a study must be one of Diptych's; got {name!r}. {hint}")
    config: Any = override(known[name](), settings)
    assert isinstance(config, StudyConfig)
    return config.build()


def _config_class(name: str) -> type[StudyConfig] | None:
    module = importlib.import_module(f"{room.__name__}.{name}")
    for cls in vars(module).values():
        if inspect.isclass(cls) and issubclass(cls, StudyConfig) and cls.__module__ == module.__name__:
            return None if cls.abstract else cls
    return None
