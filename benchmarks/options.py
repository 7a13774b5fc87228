"""The options that every benchmark has."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.material import CAPTIONS
from benchmarks.record import RESULTS, Result, publish
from benchmarks.turns import SideError


def parser(description: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """A parser with the options that are common to all."""
    found = argparse.ArgumentParser(
        description=(description or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    found.add_argument("--rounds", type=int, default=rounds, help="turns that each side takes")
    found.add_argument("--threads", type=int, default=0, help="threads of each side (0: a thread a core)")
    found.add_argument("--tiny", action="store_true", help="the smallest sizes: shows that it works, not how fast")
    found.add_argument("--results", type=Path, help="where to append (default: RESULTS.md; with --tiny: nowhere)")
    found.add_argument("--no-record", action="store_true", help="print only")
    return found


def run(measure: Callable[[argparse.Namespace], Result], arguments: argparse.Namespace) -> None:
    """Measure, print and record; a side's failure is said without a traceback."""
    if not (os.environ.get("BENCH_CAPTIONS") or CAPTIONS.exists()):
        from benchmarks.make_material import write_captions

        write_captions()
    try:
        result = measure(arguments)
    except SideError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    if arguments.tiny:
        result.comparisons = [replace(c, target=None, meant=None) for c in result.comparisons]
        result.notes.append("--tiny: this shows that the benchmark works; its numbers say nothing about speed.")
    path = arguments.results or (None if arguments.tiny else RESULTS)
    publish(result, None if arguments.no_record else path)


def names(text: str) -> list[str]:
    """A list given with commas."""
    return [part for part in text.split(",") if part]


def numbers(text: str) -> list[int]:
    """Whole numbers given with commas."""
    return [int(part) for part in names(text)]
