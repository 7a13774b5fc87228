"""What a filter is: which records of a pool stay, and of each that goes, why. One file of this folder each.

A filter is a pure function of columns: captions, sizes, pixels, meta, and scores that models have written. One that
must know the whole pool first (duplicates, balance, the top share) gathers something small of each shard and settles
it, before it gives its reasons. So any executor runs it, shard by shard, with the same result.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Bool
from numpy import ndarray

from diptych.core.config import Config
from diptych.core.errors import ConfigError
from diptych.data import filters as folder
from diptych.data.candidates import CandidatePool, Rows


class FilterConfig(Config):
    """Base of every filter's settings."""

    abstract: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The filter's name, which is that of its file."""
        return type(self).__module__.rpartition(".")[2]

    def build(self) -> "Filter":
        """The filter."""
        raise NotImplementedError


class Filter(ABC):
    """Gives a reason for every record that it drops.

    It is pickled to where shards are, after `settle`, and judges there; so it holds what `settle` found and no open
    files.
    """

    gathers: ClassVar[bool] = False
    """Whether `gather` and `settle` come first."""

    def gather(self, rows: Rows, alive: Bool[ndarray, " n"]) -> Any:
        """What this shard tells of itself: something small that can be pickled. `alive`: which records the filters
        before have left."""
        return None

    def settle(self, gathered: Iterator[Any], pool: CandidatePool, folder: Path) -> None:
        """Put together what the shards told, in their order. What is large goes into files of the `folder`, which all
        workers can read, since the filter itself is sent along with every shard."""
        return None

    @abstractmethod
    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """Of each record "" if it stays, else the reason in a word or two with underscores ("short_caption"); what is
        said of records that are not `alive` does not matter."""


def filters() -> list[str]:
    """The filters that there are: the files of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if _config_of(m.name) is not None)


def filter_config(name: str, **settings: Any) -> FilterConfig:
    """The settings of the filter called `name`, some of them given. Raises ConfigError for an unknown one."""
    found = _config_of(name) if name in {m.name for m in pkgutil.iter_modules(folder.__path__)} else None
    if found is None:
        close = get_close_matches(name, filters(), n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(filters())}."
        raise ConfigError(f"a filter must be one of the house's; got {name!r}. {hint}")
    return found(**settings)


def _config_of(name: str) -> type[FilterConfig] | None:
    module = importlib.import_module(f"{folder.__name__}.{name}")
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, FilterConfig)
            and value.__module__ == module.__name__
            and not value.abstract
        ):
            return value
    return None
