"""Peak memory and time of retrieval over N images and N texts that lie embedded on disk, both ways, exactly.

Each measurement is a process of its own (`benchmarks.retrieval_process`); the peer is clip_benchmark's
zeroshot_retrieval (its lines after the embedding), which holds all scores. Ranks are checked against planted ones
(`retrieval_tables`).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Comparison, Series, number
from benchmarks.options import numbers, parser, run
from benchmarks.record import Result, available_bytes, versions_in
from benchmarks.retrieval_process import PEER_BATCH
from benchmarks.retrieval_tables import check, write_tables
from benchmarks.turns import ROOT, SideError, environment

BOUND = 2000
"""MB that the largest tables may need."""

PEER_BYTES = 4 + 1
"""For each pair a float32 score and a bool that says whether it is right."""

SPARE = 1_500_000_000
"""Bytes that are left to the rest of the machine."""


def measure(args: argparse.Namespace) -> Result:
    """Each size, sides in turn."""
    result = Result("retrieval_memory", versions=versions_in({"both": sys.executable}))
    for items in [2048] if args.tiny else numbers(args.items):
        folder = Path(tempfile.mkdtemp(prefix="bench-retrieval-", dir=args.work))
        try:
            write_tables(folder, items, args.width, args.lost)
            _size(items, folder, args, result)
        finally:
            shutil.rmtree(folder)
    return result


def _size(items: int, folder: Path, args: argparse.Namespace, result: Result) -> None:
    share = args.share if items >= 1 << 17 else 1.0
    found: dict[str, list[dict[str, Any]]] = {"diptych": [], "clip_benchmark": []}
    for _ in range(args.rounds if items < 1 << 17 else 1):
        for side in found:
            found[side].append(one(side, items, folder, args.threads, share))
    mine, theirs = found["diptych"], found["clip_benchmark"]
    what = f"{items:,} x {items:,}, d = {args.width}"
    for kind, unit in (("peak_mb", "MB"), ("seconds", "s")):
        series = {
            side: Series(side, tuple(x[kind] for x in turns), unit, lower=True)
            for side, turns in found.items()
            if not any("error" in x for x in turns)
        }
        name = {"peak_mb": "memory", "seconds": "time" if share == 1 else f"time of {100 * share:.3g} %"}[kind]
        theirs_too = tuple(s for side, s in series.items() if side != "diptych")
        result.comparisons.append(Comparison(f"{name}: {what}", (series["diptych"],), theirs_too))
    last = mine[-1]
    done = f"{number(last['processor'])} s of the processors"
    if share < 1:
        done += (
            f", for {100 * last['share']:.2f} % of the images against all texts: the whole would be "
            f"{number(last['seconds'] / last['share'] / 60)} minutes at this rate (extrapolated), "
            f"{number(last['processor'] / last['share'])} s of the processors. The memory is that of the full tables"
        )
    else:
        done += "; " + check(folder, args.lost)
    result.notes.append(
        f"{what}: {done}; intervals and chance levels took {number(last['metrics_seconds'])} s more. Two tables hold "
        f"{2 * 4 * items * args.width / 1e6:,.0f} MB, mapped from disk, whose pages are counted; bound "
        f"{BOUND:,} MB: {'kept' if last['peak_mb'] < BOUND else 'NOT KEPT'}."
    )
    if "error" in theirs[-1]:
        result.notes.append(f"{what}: clip_benchmark does not fit here ({theirs[-1]['error']}).")
    elif share == 1:
        recalls = [k for k in theirs[-1]["metrics"] if abs(theirs[-1]["metrics"][k] - last["metrics"][k]) > 1e-6]
        result.notes.append(
            f"{what}: recalls at 1, 5 and 10 both ways that differ from clip_benchmark's: {recalls or 'none'}."
        )


def one(side: str, items: int, folder: Path, threads: int, share: float = 1.0) -> dict[str, Any]:
    """One measurement, or {"error": ...} where the machine's memory does not suffice."""
    needed = PEER_BYTES * items**2 + 3 * 10 * 8 * PEER_BATCH * items
    if side != "diptych" and needed > available_bytes() - SPARE:
        return {
            "error": f"it would hold {needed / 1e9:,.0f} GB, by arithmetic; {available_bytes() / 1e9:.0f} GB are free"
        }
    command = [sys.executable, "-m", "benchmarks.retrieval_process", "--side", side, "--folder", str(folder)]
    command += ["--share", str(share)] if side == "diptych" else []
    done = subprocess.run(command, cwd=ROOT, env=environment(threads), stdout=subprocess.PIPE, text=True)
    if done.returncode == -9:
        return {"error": "killed for want of memory"}
    if done.returncode:
        raise SideError(f"{side} failed at {items:,} items (exit code {done.returncode}); its messages are above.")
    print(f"  {side}, {items:,}", file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--items", default="8192,16384,1000000", help="images, and as many texts")
    options.add_argument("--width", type=int, default=64, help="numbers a vector; 32 or more for a million")
    options.add_argument(
        "--lost", type=float, default=0.1, help="share of items whose text has nothing to do with them"
    )
    options.add_argument("--share", type=float, default=1.0, help="of 131,072 items or more, do so much of the images")
    options.add_argument("--work", type=Path, help="where the tables are put meanwhile (default: the system's)")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
