"""A Ray cluster, or a Ray of this machine's own: the same functions over the same items as the pool's.

With ``RAY_ADDRESS`` set (as within ``ray job submit``) the tasks go to that cluster, whose nodes must see the same
paths and have the same Diptych; otherwise one is started for this process alone, and stopped with the executor.
"""

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, TypeVar

from diptych.core.errors import ConfigError, DataError
from diptych.data.executors.executor import Executor, ExecutorConfig
from diptych.data.workers import cores

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2
"""Tasks a core that are handed over ahead of whoever takes results."""
TRIES = 2
"""How often a task is done again whose process or node died: what a stage writes is whole or not there."""

SETTINGS = {"RAY_task_oom_retries": str(TRIES), "RAY_worker_register_timeout_seconds": "600"}
"""Of a Ray of our own: what ran out of memory would else be tried for ever, and workers that take more than a minute to
start on a busy machine be given up."""


class RayConfig(ExecutorConfig):
    """Settings of Ray: `jobs` alone; 0: one a core of the cluster."""

    def build(self) -> "Ray":
        """The executor."""
        return Ray(self)


class Ray(Executor):
    """Plain tasks of one core each, their results taken in the items' order. What `work` holds is sent to a node
    once, not with every item."""

    def __init__(self, config: RayConfig) -> None:
        self.jobs = config.jobs
        self._ray: Any = None
        self._own = False
        self._close: Callable[[], Any] = lambda: None

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``work(item)`` of each item, in the items' order."""
        if not len(items):
            return
        ray = self._opened()
        task = ray.remote(num_cpus=1, max_retries=TRIES)(_call)
        given, waiting = ray.put(work), deque[Any]()
        ahead = self._ahead(ray)
        try:
            for item in items:
                waiting.append(task.remote(given, item))
                if len(waiting) >= ahead:
                    yield _taken(ray, waiting.popleft())
            while waiting:
                yield _taken(ray, waiting.popleft())
        finally:
            for left in waiting:
                ray.cancel(left)

    def close(self) -> None:
        """Stop the Ray that this executor started, if it did; done by itself when the executor or the process ends."""
        self._close()
        self._ray = None

    def _opened(self) -> Any:
        if self._ray is not None:
            return self._ray
        ray = package()
        if not ray.is_initialized():
            if os.environ.get("RAY_ADDRESS"):
                ray.init(log_to_driver=False, logging_level="error")
            else:
                for name, value in SETTINGS.items():
                    os.environ.setdefault(name, value)
                count = self.jobs or cores()
                quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
                ray.init(address="local", num_cpus=count, **quiet)
                self._own = True
            self._close = weakref.finalize(self, ray.shutdown)
        self._ray = ray
        return ray

    def _ahead(self, ray: Any) -> int:
        """How many tasks may be under way or wait; of a cluster that is not our own, `jobs` at most."""
        if self.jobs:
            return self.jobs * (AHEAD if self._own else 1)
        return AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))


def package() -> Any:
    """The package ``ray``. Raises ConfigError where it is missing."""
    try:
        return import_module("ray")
    except ImportError:
        raise ConfigError(
            "the executor ray must have the package ray; it is not installed. pip install 'diptych[ray]', or leave "
            "--engine out for the processes of this machine."
        ) from None


def _call(work: Callable[[T], R], item: T) -> R:
    return work(item)


def _taken(ray: Any, reference: Any) -> Any:
    """A result; the error of a task as `work` raised it."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except ray.exceptions.RayError as error:
        said = str(error).strip().partition("\n")[0]
        raise DataError(
            f"a task that works on shards must live until it is done; its process or node died ({said}). Most often "
            "memory ran out: give fewer --jobs, and run the same command again: what is done is kept."
        ) from None
