"""Two sides that take turns: A B A B, each a process of its own, and only one of them computing at any time.

The side that waits is stopped with SIGSTOP, its loader workers with it, so that nothing that it left running (spinning
OpenMP threads, batches fetched ahead) takes time from the one whose turn it is.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[1]
PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"


class SideError(RuntimeError):
    """A side failed; the message says how, and where its log is."""


def peer_python() -> str:
    """The peer's interpreter: $BENCH_PYTHON, else that of `make bench`. Raises SideError where there is none."""
    python = os.environ.get("BENCH_PYTHON") or str(PEER_PYTHON)
    if not Path(python).exists():
        raise SideError(f"the peer needs an interpreter; got {python}, which is not there. Run `make bench` first.")
    return python


class Worker:
    """One side: a process that runs `benchmarks.worker` around `module`, at rest until it is asked."""

    def __init__(self, name: str, python: str, module: str, threads: int = 0, env: dict[str, str] | None = None):
        self.name, self.module, self._failed = name, module, False
        self.log = Path(tempfile.mkstemp(prefix=f"bench-{name.replace(' ', '-')}-", suffix=".log")[1])
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=environment(threads) | (env or {}),
                text=True,
                start_new_session=True,
            )

    def ask(self, do: str, **given: Any) -> Any:
        """Wake the side, let it do one thing, stop it again; its answer. Raises SideError where it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._signal(signal.SIGCONT)
        self._failed = True  # until it is known better: its log is then kept
        try:
            self._process.stdin.write(json.dumps({"do": do, "with": given}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            why = "it was killed, most often for want of memory" if code == -signal.SIGKILL else f"exit code {code}"
            raise SideError(f"{self.name} ended in {do} ({why}). Its log is {self.log}:\n{self._tail()}")
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # it takes a moment
        reply = json.loads(line)
        if "error" in reply:
            raise SideError(f"{self.name} failed in {do}: {reply['error']}\nIts log is {self.log}:\n{self._tail()}")
        self._failed = False
        return reply["ok"]

    def close(self) -> None:
        """End the process and what it started."""
        self._signal(signal.SIGCONT)
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if not self._failed:
            self.log.unlink(missing_ok=True)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _tail(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def ours(module: str, name: str = "diptych", threads: int = 0) -> Worker:
    """A worker of ours around `benchmarks.ours.<module>`."""
    return Worker(name, sys.executable, f"benchmarks.ours.{module}", threads)


def peer(module: str, name: str = "open_clip", threads: int = 0) -> Worker:
    """A worker of the peer's around `benchmarks.peer.<module>`."""
    return Worker(name, peer_python(), f"benchmarks.peer.{module}", threads)


def environment(threads: int = 0) -> dict[str, str]:
    """The environment of both sides alike; `threads` 0: torch's own choice, a thread a core."""
    found = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    found |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    found |= {"PYTHONUNBUFFERED": "1", "DIPTYCH_TRUST": "benchmarks"}
    return found | ({"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} if threads else {})


def in_turns(workers: Sequence[Worker], rounds: int, do: str, **given: Any) -> dict[str, list[Any]]:
    """Each worker's answers, a round after the other: A B A B."""
    found: dict[str, list[Any]] = {w.name: [] for w in workers}
    for number in range(rounds):
        for worker in workers:
            found[worker.name].append(worker.ask(do, **given))
            print(f"  round {number + 1}/{rounds}  {worker.name}", file=sys.stderr, flush=True)
    return found
