"""Worker processes that prepare items in order; one that dies or hangs ends the run with advice, never with silence."""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader

from diptych.core.errors import TrainingError


class _Died(Exception):
    """A worker is gone."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_fork() -> bool:
    """Whether workers may share this process's memory (elsewhere than on Linux forking is unsafe or impossible)."""
    return os.name == "posix" and os.uname().sysname == "Linux"


def end_with_parent() -> None:
    """In a worker: end when the process that gives it work is killed. Else it would go on with its item, into the very
    files that the same command writes when it is given again, and then wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@contextmanager
def one_thread() -> Iterator[int]:
    """torch computes with one thread in here; how many it had, and has again afterwards.

    In a process that was forked it must: OpenMP's threads do not come along, and whoever used them before the fork
    would wait for them for ever. And what is summed by one thread is the same wherever it is done.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


SHORT = 50
"""Batches below which no process is started to prepare them, unless it was asked for."""
_TRIED = 3
_SLOW_S = 2.0
_WORTH = 0.15
"""Share of a step below which preparing a batch in the training process costs less than a process that takes its
cores away from it."""


def worker_count(asked: int) -> int:
    """`asked`, or for -1 the most that `measured` chooses: with a GPU all cores of this rank but one (at most 16);
    without one a quarter of them, since the others train; none where processes cannot be forked."""
    if asked >= 0:
        return asked
    if not can_fork():
        return 0
    mine = cores() // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    return min(16, max(1, mine - 1)) if torch.cuda.is_available() else min(8, max(1, -(-mine // 4)))


def needed(prepare_s: float, step_s: float, most: int, shared: bool) -> int:
    """How many workers keep up with steps of `step_s` seconds, if a batch takes one of them `prepare_s`: a fifth more
    than just enough, at most `most`; none where they would be `shared` cores that train, and have little to do."""
    if shared and prepare_s < _WORTH * step_s:
        return 0
    return max(1, min(most, math.ceil(1.2 * prepare_s / max(step_s, 1e-9))))


def measured(prepare: Any, steps: Iterator[Any], most: int, shared: bool) -> Generator[Any, None, tuple[int, str]]:
    """The first few ``prepare[step]``, made here; returns how many workers the rest needs, and why, in words.

    Whoever takes the items is timed between one and the next; the first time is left out, since it warms up.
    """
    made: list[float] = []
    used: list[float] = []
    for step in islice(steps, _TRIED):
        started = time.perf_counter()
        with one_thread():  # as a worker has
            item = prepare[step]
        made.append(time.perf_counter() - started)
        yield item
        used.append(time.perf_counter() - started - made[-1])
        if made[-1] > _SLOW_S:  # not to be waited for any longer
            break
    if not made:
        return 0, ""
    prepare_s, step_s = min(made), min(used[1:] or used)
    return needed(prepare_s, step_s, most, shared), f"a batch takes {_ms(prepare_s)} to prepare, a step {_ms(step_s)}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"


def in_workers(
    prepare: Any, steps: Iterator[Any], workers: int, prefetch: int, timeout_s: float
) -> Generator[Any, None, None]:
    """``prepare[step]`` of each step, in order, made in `workers` processes. Raises TrainingError if one dies or hangs.

    Closing it ends the processes. Tensors arrive in page-locked memory where there is a GPU.
    """
    loader: DataLoader[Any] = DataLoader(
        prepare,
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=prefetch,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        timeout=timeout_s,
        generator=torch.Generator(),  # else it would draw from the global state, and the model's draws would shift
        multiprocessing_context="fork" if can_fork() else "spawn",
        in_order=True,
    )
    others = set(multiprocessing.active_children())
    with _kept_sigchld(), _silent_tokenizers():
        made = iter(loader)
    processes = set(multiprocessing.active_children()) - others
    try:
        while True:
            try:
                with _watched(processes):
                    item = next(made)
            except StopIteration:
                return
            yield item
    except (_Died, RuntimeError, ConnectionError, EOFError) as error:
        for process in processes:  # the run is over; else each that hangs is waited for
            process.kill()
        raise _explained(error, timeout_s) from None
    finally:
        made._shutdown_workers()  # type: ignore[attr-defined]  # what its __del__ does, but now


@contextmanager
def _watched(processes: set[Any]) -> Iterator[None]:
    """Raises _Died at once if a process of `processes` is dead or dies while the block waits for it.

    torch's own handler raises wherever the main thread happens to be, in the middle of a training step for example.
    """

    def look(*_: Any) -> None:
        for process in processes:
            if not process.is_alive() and process.exitcode != 0:  # 0: told to, after the last item
                raise _Died(f"process {process.pid} ended with exit code {process.exitcode}")

    look()
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield  # only the main thread receives signals; the timeout still holds
        return
    before = signal.signal(signal.SIGCHLD, look)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@contextmanager
def _kept_sigchld() -> Iterator[None]:
    """Undoes the block's change of the SIGCHLD handler."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@contextmanager
def _silent_tokenizers() -> Iterator[None]:
    """Processes forked in the block tokenise with one thread; the tokenizers library would warn of each otherwise."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _explained(error: Exception, timeout_s: float) -> Exception:
    words = str(error).splitlines()[0] if str(error) else ""
    if "timed out" in words:
        return TrainingError(
            f"a loader worker must prepare a batch within {timeout_s:g} s; it did not. Is the disk or network drive "
            "hanging? Raise data.timeout_s, or copy the dataset to a local disk."
        )
    # a connection ends where a worker dies in the middle of handing over what it had made
    gone = isinstance(error, (_Died, ConnectionError, EOFError))
    if gone or "exited unexpectedly" in words or "killed by signal" in words:
        return TrainingError(
            f"loader workers must live as long as the run; one died ({words}). Most often memory ran out: lower "
            "data.workers or data.prefetch, or give a container more shared memory (--shm-size). Then --resume."
        )
    return error


def _as_it_is(value: Any) -> Any:
    return value
