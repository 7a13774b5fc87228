"""Seconds of CPU that a process and its living children have used: loader workers counted while they work."""

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """User and system time of this process, of its children that live, and of those that were waited for."""
    me = os.getpid()
    return sum(used(pid) for pid in (me, *_children(me))) + sum(os.times()[2:4])


def used(pid: int) -> float:
    """User and system time of one process, whoever it belongs to; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended since
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(p) for p in (task / "children").read_text().split()]
        except OSError:
            continue
    return found
