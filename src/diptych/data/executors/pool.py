"""The processes of this machine."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from diptych.core.errors import DataError
from diptych.data.executors.executor import Executor, ExecutorConfig
from diptych.data.workers import can_fork, cores, end_with_parent

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2
"""Items a process is given ahead, so that none waits for the one who takes results."""


def _start_worker() -> None:
    """One thread a process: they share the cores, and OpenMP's threads do not come along when a process is forked, so
    that whoever used them before would wait for them here for ever."""
    end_with_parent()
    torch.set_num_threads(1)


class PoolConfig(ExecutorConfig):
    """Settings of the process pool: `jobs` alone."""

    def build(self) -> "Pool":
        """The pool."""
        return Pool(self)


class Pool(Executor):
    """`jobs` processes; with one, the work is done in this process."""

    def __init__(self, config: PoolConfig) -> None:
        self.jobs = config.jobs or cores()

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``work(item)`` of each item, in the items' order."""
        jobs = min(self.jobs, len(items))
        if jobs <= 1:
            yield from map(work, items)
            return
        context = multiprocessing.get_context("fork" if can_fork() else "spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker) as pool:
            waiting: deque[Future[R]] = deque()
            todo = iter(items)
            try:
                for item in todo:
                    waiting.append(pool.submit(work, item))
                    if len(waiting) >= AHEAD * jobs:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BrokenProcessPool:
                raise DataError(
                    f"a process that works on shards must live until it is done; one died. Most often memory ran out: "
                    f"give fewer --jobs (there were {jobs}), and run the same command again: what is done is kept."
                ) from None
            finally:
                for future in waiting:
                    future.cancel()
