"""What a filter is: which records of a pool stay, and of each that goes, why. One file of this folder each.

A filter is a pure function of columns: captions, sizes, pixels, meta, and scores that models have written. One that
must know the whole pool first (duplicates, balance, the top share) gathers something small of each shard and settles
it, before it gives its reasons. So any executor runs it, shard by shard, with the same result.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Bool
from numpy import ndarray

from diptych.core.config import Config
from diptych.core.folder import Folder
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


FILTERS = Folder(folder, FilterConfig, "a filter")


def filters() -> tuple[str, ...]:
    """The filters that there are: the files of this folder."""
    return FILTERS.names()


def filter_config(name: str, **settings: Any) -> FilterConfig:
    """The settings of the filter called `name`, some of them given. Raises ConfigError for an unknown one."""
    return FILTERS.find(name)(**settings)
