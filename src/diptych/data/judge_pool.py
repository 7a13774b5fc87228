"""`judge` over a stream of records in several processes: order kept, memory bounded, and no image can bring it down.

A decoder that crashes or never returns takes its process with it. The records that were in flight are then judged
again, each alone in a process of its own, and the one that does it again is rejected as "decoder_crashed".
"""

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.judge import Kept, Limits, judge
from diptych.data.sources.source import Reject
from diptych.data.workers import end_with_parent

Item = Record | Reject
Verdict = Kept | Reject
Judge = Callable[[Record, Limits, bool], Verdict]

CHUNK_RECORDS = 16
CHUNK_BYTES = 8 << 20


def judge_all(
    items: Iterator[Item],
    limits: Limits,
    images_only: bool = False,
    jobs: int = 1,
    timeout_s: float = 300.0,
    judge_one: Judge = judge,
) -> Iterator[Verdict]:
    """A verdict for each item, in order. jobs = 1: in this process (a crash of a decoder is then ours); 0: one process
    a core. `timeout_s` is for a chunk of records, and for a single one when it is tried alone."""
    jobs = jobs or min(os.cpu_count() or 1, 16)
    if jobs == 1:
        for item in items:
            yield item if isinstance(item, Reject) else judge_one(item, limits, images_only)
        return
    pool = _Pool(jobs, limits, images_only, judge_one)
    waiting: deque[tuple[list[Item], Future[list[Verdict]]]] = deque()
    try:
        for chunk in _chunks(items):
            waiting.append((chunk, pool.submit(chunk)))
            while len(waiting) > 2 * jobs:
                yield from _next(waiting, pool, timeout_s)
        while waiting:
            yield from _next(waiting, pool, timeout_s)
    finally:
        pool.stop()


def _next(
    waiting: "deque[tuple[list[Item], Future[list[Verdict]]]]", pool: "_Pool", timeout_s: float
) -> Iterator[Verdict]:
    chunk, future = waiting.popleft()
    try:
        verdicts = future.result(timeout_s)
    except (BrokenProcessPool, TimeoutError):
        pool.stop()
        yield from _alone(chunk, pool, timeout_s)
        pool.start()
        again = [(c, f if _succeeded(f) else pool.submit(c)) for c, f in waiting]
        waiting.clear()
        waiting.extend(again)
        return
    yield from verdicts


def _succeeded(future: "Future[list[Verdict]]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _alone(chunk: list[Item], pool: "_Pool", timeout_s: float) -> Iterator[Verdict]:
    """Verdicts of a chunk that met a crash, one record at a time."""
    single = pool.single()
    try:
        for item in chunk:
            if isinstance(item, Reject):
                yield item
                continue
            try:
                yield from single.submit([item]).result(timeout_s)
            except (BrokenProcessPool, TimeoutError) as error:
                what = "never came back" if isinstance(error, TimeoutError) else "ended its process"
                size = sum(len(s.payload) for s in item.segments if isinstance(s.payload, bytes))
                message = f"an image must be decodable; this one {what}. Look at it with care, or remove it."
                yield Reject(item.key, message, "decoder_crashed", size=size)
                single.stop()
                single.start()
    finally:
        single.stop()


def _chunks(items: Iterator[Item]) -> Iterator[list[Item]]:
    chunk, size = list[Item](), 0
    for item in items:
        chunk.append(item)
        if isinstance(item, Record):
            size += sum(len(s.payload) for s in item.segments if isinstance(s.payload, bytes))
        if len(chunk) >= CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class _Pool:
    """A pool of processes that can be thrown away, hung ones included, and started again."""

    def __init__(self, jobs: int, limits: Limits, images_only: bool, judge_one: Judge) -> None:
        self.jobs, self.limits, self.images_only, self.judge_one = jobs, limits, images_only, judge_one
        self.start()

    def single(self) -> "_Pool":
        """A pool of one process with the same duties."""
        return _Pool(1, self.limits, self.images_only, self.judge_one)

    def start(self) -> None:
        # never plain fork: this process has threads (torch, arrow), and a forked lock stays locked
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["diptych.data.judge_pool"])
        self._pool = ProcessPoolExecutor(
            self.jobs, context, _start_worker, (self.limits, self.images_only, self.judge_one)
        )
        try:
            self._pool.submit(os.getpid).result(120)
        except (BrokenProcessPool, TimeoutError):
            self.stop()
            raise DataError(
                "worker processes must be able to start; they end at once. If this is a script, put its work under "
                "`if __name__ == '__main__':`, or pack with jobs=1."
            ) from None

    def submit(self, chunk: list[Item]) -> "Future[list[Verdict]]":
        try:
            return self._pool.submit(_judge_chunk, chunk)
        except (BrokenProcessPool, RuntimeError) as error:  # broken since; whoever waits for it starts the pool anew
            future: Future[list[Verdict]] = Future()
            future.set_exception(BrokenProcessPool(str(error)))
            return future

    def stop(self) -> None:
        """End the processes at once: a hung decoder would not notice a polite request."""
        processes = list((getattr(self._pool, "_processes", None) or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            with contextlib.suppress(OSError, ValueError):
                process.kill()
        for process in processes:
            with contextlib.suppress(OSError, ValueError, AssertionError):
                process.join(5)


_duty: tuple[Limits, bool, Judge] | None = None


def _start_worker(limits: Limits, images_only: bool, judge_one: Judge) -> None:
    global _duty
    _duty = (limits, images_only, judge_one)
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then ends us
    torch.set_num_threads(1)


def _judge_chunk(chunk: list[Item]) -> list[Verdict]:
    assert _duty is not None
    limits, images_only, judge_one = _duty
    return [item if isinstance(item, Reject) else judge_one(item, limits, images_only) for item in chunk]
