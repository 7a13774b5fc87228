"""A command as a whole: the processor time and the memory of its process and of all that it starts."""

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.turns import ROOT, SideError

EVERY = 0.05
"""Seconds between two looks at the memory."""


class Usage(NamedTuple):
    """What a command took: seconds by the clock, seconds of the processors (user and system, of all processes that it
    waited for), the largest sum of its processes' memory in bytes (shared pages counted once, pages of files, which can
    be dropped, not; 0: not looked at), and what it printed."""

    wall: float
    cpu: float
    peak: int
    output: str


def run_tree(command: Sequence[str], env: dict[str, str], memory: bool = False) -> Usage:
    """Run a command in the repository's folder until it ends. Raises SideError where it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    watch = _Watch(process.pid) if memory else None
    said: list[bytes] = [b"", b""]
    readers = [
        threading.Thread(target=_read, args=(said, i, stream))
        for i, stream in enumerate((process.stdout, process.stderr))
    ]
    for reader in readers:
        reader.start()
    _, status, usage = os.wait4(process.pid, 0)  # of this child and of those that it waited for
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = watch.stop() if watch else 0
    for reader in readers:
        reader.join()
    if process.returncode:
        tail = "\n".join(said[1].decode(errors="replace").splitlines()[-12:])
        raise SideError(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
    return Usage(wall, usage.ru_utime + usage.ru_stime, peak, said[0].decode(errors="replace"))


def _read(said: list[bytes], which: int, stream: Any) -> None:
    said[which] = stream.read()


class _Watch:
    """Looks at the memory of a process and its descendants until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._ended = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        while not self._ended.wait(EVERY):
            self._peak = max(self._peak, sum(proportional(p) for p in descendants(self._pid)))


def descendants(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                todo += [int(p) for p in (task / "children").read_text().split()]
        except OSError:  # it has ended since
            continue
    return found


def proportional(pid: int) -> int:
    """Bytes of a process that are resident and its own, not a file's; pages that n processes share count as an n-th; 0
    if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
