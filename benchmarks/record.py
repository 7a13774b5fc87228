"""What was measured, where and with what: printed, and appended to RESULTS.md."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figures import Comparison, comparison_table, number
from benchmarks.turns import ROOT, Worker

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass
class Result:
    """One run of one benchmark."""

    benchmark: str
    comparisons: list[Comparison] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    body: str = ""
    """Markdown beyond the table of comparisons."""

    def markdown(self) -> str:
        """The section that goes into RESULTS.md."""
        parts = [
            f"## {self.benchmark}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            f"`{command()}`",
            f"{machine()}.  \n" + "  \n".join(f"{side}: {_listed(v)}" for side, v in self.versions.items()),
        ]
        if self.comparisons:
            parts.append(comparison_table(self.comparisons))
        if self.body:
            parts.append(self.body)
        notes = list(dict.fromkeys([*self.notes, *(n for c in self.comparisons for n in c.notes)]))
        if notes:
            parts.append("\n".join(f"- {n}" for n in notes))
        turns = {
            s: f"{c.what}, {s.name}: {' '.join(number(v) for v in s.values)}"
            for c in reversed(self.comparisons)  # a series that is compared twice is listed where it comes first
            for s in reversed((*c.ours, *c.theirs))
        }
        if turns:
            parts.append("Every turn, in order: " + "; ".join(reversed(turns.values())) + ".")
        return "\n\n".join(parts) + "\n"


def publish(result: Result, path: Path | None) -> None:
    """Print a result, and append it to `path` if there is one."""
    text = result.markdown()
    print(text)
    if path is not None:
        if not path.exists():
            path.write_text("# Results\n\nEach benchmark appends here; the newest of its kind is last.\n")
        with path.open("a") as f:
            f.write("\n" + text)
        print(f"appended to {path}", file=sys.stderr)


def command() -> str:
    """The command as it can be given again."""
    module = Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", f"benchmarks.{module}", *sys.argv[1:]]).replace(str(ROOT) + "/", "")


def machine() -> str:
    """CPU, cores, memory, GPU and load of this machine."""
    parts = [_cpu(), f"{len(os.sched_getaffinity(0))} cores", f"{_memory_gb():.0f} GB", platform.system()]
    gpu = _gpu()
    load = os.getloadavg()[0]
    return ", ".join([*parts, *([gpu] if gpu else ["no GPU"]), f"load before the end {load:.1f}"])


def available_bytes() -> int:
    """Memory that a process can take without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo must have a line MemAvailable; run this on Linux")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")
    flags = next((line for line in lines if line.startswith("flags")), "")
    special = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {f}" in flags]
    return f"{name} ({', '.join(special)})"


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _gpu() -> str:
    try:
        import torch
    except ImportError:
        return ""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{k} {v}" for k, v in versions.items())


def versions_of(workers: Sequence[Worker]) -> dict[str, dict[str, str]]:
    """What each worker runs on, by its name; two of one interpreter are named once."""
    return _once({worker.name: worker.ask("versions") for worker in workers})


def versions_in(pythons: dict[str, str]) -> dict[str, dict[str, str]]:
    """What each interpreter holds, by the name of the side that runs on it."""
    ask = "import json; from benchmarks.worker import versions; print(json.dumps(versions()))"
    return _once(
        {
            side: json.loads(subprocess.run([p, "-c", ask], cwd=ROOT, capture_output=True, check=True).stdout)
            for side, p in pythons.items()
        }
    )


def _once(found: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Sides with equal versions together."""
    sides: dict[str, list[str]] = {}
    for side, versions in found.items():
        sides.setdefault(json.dumps(versions), []).append(side)
    return {" and ".join(names): json.loads(versions) for versions, names in sides.items()}
