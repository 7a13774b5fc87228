"""A folder is a registry: what there is of a kind are the files of its folder, found by their names.

Nothing registers itself and no dictionary lists what there is: a new eval, filter or recipe is one new file.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from types import ModuleType
from typing import Any, Generic, TypeVar

from diptych.core.config import Config
from diptych.core.errors import ConfigError

C = TypeVar("C", bound=Config)


class Folder(Generic[C]):
    """The files of a package that hold one concrete config of a family each; other files there are parts of these.

    `what` is said in errors: "a filter".
    """

    def __init__(self, package: ModuleType, family: type[C], what: str) -> None:
        self.package, self.family, self.what = package, family, what

    def names(self) -> tuple[str, ...]:
        """The names of what there is, in order."""
        return tuple(name for name in modules_of(self.package) if self._in(name) is not None)

    def find(self, name: str) -> type[C]:
        """The config in the file called `name`. Raises ConfigError with the nearest name where there is none."""
        found = self._in(name) if name in modules_of(self.package) else None
        if found is None:
            raise ConfigError(f"{self.what} must be one of Diptych's; got {name!r}. {did_you_mean(name, self.names())}")
        return found

    def _in(self, name: str) -> type[C] | None:
        module = importlib.import_module(f"{self.package.__name__}.{name}")
        for value in vars(module).values():
            own = inspect.isclass(value) and issubclass(value, self.family) and value.__module__ == module.__name__
            if own and not value.abstract:
                return value
        return None


def modules_of(package: ModuleType) -> list[str]:
    """The names of the modules in a package's folder, in order."""
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__))


def functions_of(package: ModuleType, apart: str) -> dict[str, Callable[..., Any]]:
    """The public functions of a package's modules, by ``module:function``; those of the module `apart` are not of the
    kind."""
    found: dict[str, Callable[..., Any]] = {}
    for name in modules_of(package):
        if name == apart:
            continue
        module = importlib.import_module(f"{package.__name__}.{name}")
        for function, value in inspect.getmembers(module, inspect.isfunction):
            if not function.startswith("_") and value.__module__ == module.__name__:
                found[f"{name}:{function}"] = value
    return found


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """What to say after a name that is none: the nearest, or all."""
    every = list(known)
    close = get_close_matches(name, every, n=1, cutoff=cutoff)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(every) or 'none'}."
