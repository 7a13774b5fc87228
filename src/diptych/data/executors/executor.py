"""Where the work on shards is done: one machine's processes or a cluster, the same function over the same items.

Every stage of the data engine is a map over shards: a picklable function of one item that holds no state, whose
result is small (what is large it writes to a file of its own). So results do not depend on the executor, on how many
workers it has, or on where a run was killed. The folder is the registry: ``pool`` and ``ray`` are its files.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, TypeVar

from pydantic import Field

from diptych.core.config import Config
from diptych.core.folder import Folder
from diptych.data import executors as folder

T = TypeVar("T")
R = TypeVar("R")


class ExecutorConfig(Config):
    """Base of every executor's settings. `jobs`: items worked on at once; 0: one a core."""

    abstract: ClassVar[bool] = True
    jobs: int = Field(default=0, ge=0)

    def build(self) -> "Executor":
        """The executor."""
        raise NotImplementedError


class Executor(ABC):
    """Maps a function over items, in order."""

    @abstractmethod
    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``work(item)`` of each item, in the items' order, a few ahead of whoever takes them. An error that `work`
        raises is raised here, and ends the map; a worker that dies ends it with a DataError, never in silence."""


EXECUTORS = Folder(folder, ExecutorConfig, "an executor")


def executor(name: str = "pool", jobs: int = 0) -> Executor:
    """The executor called `name`. Raises ConfigError for an unknown one, and where its package is missing."""
    return EXECUTORS.find(name)(jobs=jobs).build()
