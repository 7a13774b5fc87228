"""Seconds from `diptych --help` to its first output, and the peer's for comparison."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figures import Comparison, Series, number
from benchmarks.options import parser, run
from benchmarks.record import Result, versions_in
from benchmarks.turns import ROOT, SideError, environment, peer_python

LIMIT_S = 0.4
THEIRS = [
    "-c",
    "from tests.torchvision_on_cpu import install; install(); import open_clip_train.main as m; m.main(['-h'])",
]


def measure(args: argparse.Namespace) -> Result:
    """Both commands in turn; the first turn of each warms the files' cache and does not count."""
    python = peer_python()
    found: dict[str, list[float]] = {"diptych --help": [], "open_clip_train.main --help": []}
    for number_ in range((2 if args.tiny else args.rounds) + 1):
        for name, command in zip(found, ([_diptych(), "--help"], [python, *THEIRS]), strict=True):
            seconds = first_output(command)
            if number_:
                found[name].append(seconds)
    mine, theirs = (Series(k, tuple(v), "s", lower=True) for k, v in found.items())
    verdict = "reached" if mine.median < LIMIT_S else "NOT REACHED"
    note = f"Target: under {LIMIT_S} s to the first output: {number(mine.median)} s at the median, {verdict}."
    versions = versions_in({"diptych": sys.executable, "open_clip": python})
    return Result("help", [Comparison("first output", (mine,), (theirs,))], versions, [note])


def _diptych() -> str:
    """The command as it is installed beside this interpreter."""
    command = Path(sys.executable).with_name("diptych")
    if not command.exists():
        raise SideError(f"{command} must be there; install Diptych with pip (make bench).")
    return str(command)


def first_output(command: list[str]) -> float:
    """Seconds until a command writes its first byte."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - started
        process.stdout.read()
    if not first:
        raise SideError(f"{' '.join(command)} must print its help; it printed nothing.")
    return seconds


def main() -> None:
    """The command."""
    run(measure, parser(__doc__, rounds=10).parse_args())


if __name__ == "__main__":
    main()
