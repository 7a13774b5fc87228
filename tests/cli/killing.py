"""Commands in processes of their own that are killed (SIGKILL, with all that they started), and what they leave.

Where a command is killed is said by number: just before its n-th change to files below a folder (files opened for
writing, renames, removals, folders made), as Python's audit hooks tell them. So every such place can be tried, and a
place is the same one each time. What libraries write without Python's knowing (pyarrow) lies between two numbers.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
PRELOADED = ("diptych.cli.main", "diptych.data.curate", "diptych.data.web.download", "diptych.serve.recaption")
CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Ended(NamedTuple):
    """How a command ended: its code (-9: killed), what it said, and how many changes it made to files."""

    code: int
    said: str
    changes: int


class Command:
    """``diptych ARGUMENTS``, whose changes below `folder` count; `scratch` lies elsewhere."""

    def __init__(self, arguments: Sequence[object], folder: Path, scratch: Path) -> None:
        self.arguments, self.folder, self.scratch = [str(a) for a in arguments], folder, scratch
        scratch.mkdir(parents=True, exist_ok=True)
        CONTEXT.set_forkserver_preload(list(PRELOADED))

    def run(self, stop: int = 0) -> Ended:
        """To its end, or until it is killed before its `stop`-th change."""
        process = self.start(stop)
        process.join(300)
        return self.ended(process)

    def run_until(self, when: Callable[[], bool]) -> Ended:
        """Killed from outside as soon as `when` holds."""
        process = self.start()
        until = time.monotonic() + 300
        while process.is_alive() and not when() and time.monotonic() < until:
            time.sleep(0.002)
        self.kill_all(process)
        process.join(60)
        return self.ended(process)

    def start(self, stop: int = 0) -> Any:
        """The process, leader of a session of its own."""
        process = CONTEXT.Process(target=_carry_out, args=(self.arguments, str(self.folder), str(self.scratch), stop))
        process.start()
        return process

    def kill_all(self, process: Any) -> None:
        """Kill it and what it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()  # it may not have made its session yet

    def ended(self, process: Any) -> Ended:
        """What is to be said of a process that has ended."""
        if process.is_alive():
            self.kill_all(process)
            raise AssertionError(f"{self.arguments} did not end: {self._read('said')}")
        return Ended(int(process.exitcode), self._read("said"), int(self._read("changes") or 0))

    def _read(self, name: str) -> str:
        path = self.scratch / name
        return path.read_text(errors="replace") if path.exists() else ""


def session(leader: int) -> list[int]:
    """Processes of a session that still live (Linux)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()  # state, parent, group, session
                if int(fields[3]) == leader and fields[0] not in "ZX":
                    found.append(int(entry.name))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path; folders are there as their path and a slash."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found |= {name: path.read_bytes()} if path.is_file() else {f"{name}/": b""}
    return found


def _carry_out(arguments: list[str], folder: str, scratch: str, stop: int) -> None:
    """In the process: the command, its words into scratch/said, the number of its changes into scratch/changes."""
    os.setsid()
    said = os.open(f"{scratch}/said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ["DIPTYCH_CACHE"] = f"{scratch}/cache"
    count = 0

    def heard(event: str, given: tuple[Any, ...]) -> None:
        nonlocal count
        if event in CHANGES and _is_change(event, given, folder):
            count += 1
            if count == stop:
                os.killpg(0, signal.SIGKILL)

    from diptych.cli.main import main

    sys.addaudithook(heard)
    try:
        main(arguments)
    finally:
        Path(f"{scratch}/changes").write_text(str(count))


def _is_change(event: str, given: tuple[Any, ...], folder: str) -> bool:
    path = given[0]
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    path = os.fsdecode(path)
    if event == "open":
        return path.startswith(folder) and bool((given[2] or 0) & WRITES)
    inside_tree = event in ("os.remove", "os.rmdir") and not os.path.isabs(path) and given[-1] not in (-1, None)
    return path.startswith(folder) or inside_tree  # rmtree names what it removes relative to an open folder
