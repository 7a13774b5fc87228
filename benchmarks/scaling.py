"""Samples a second of all processes together, for one and two of them, and for growing batches."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Comparison, Series, best_of, number
from benchmarks.options import numbers, parser, run
from benchmarks.record import Result, versions_in
from benchmarks.turns import ROOT, SideError, environment, peer_python


def measure(args: argparse.Namespace) -> Result:
    """Every (processes, batch) in turn, both sides alternately."""
    model = "ViT-bench-tiny" if args.tiny else args.model
    result = Result("scaling", versions=versions_in({"diptych": sys.executable, "open_clip": peer_python()}))
    with tempfile.TemporaryDirectory() as folder:
        for processes in numbers(args.processes):
            for batch in [8] if args.tiny else numbers(args.batches):
                found: dict[str, list[float]] = {"open_clip": [], "diptych": []}
                for _ in range(args.rounds):
                    for side in found:
                        found[side].append(processes * one(side, model, processes, batch, folder, args))
                mine, theirs = (Series(side, tuple(found[side])) for side in ("diptych", "open_clip"))
                what = f"{model}, {processes} process(es) x {batch}"
                result.comparisons.append(Comparison(what, (mine,), (theirs,)))
    first = result.comparisons[0]
    for c in result.comparisons[1:]:
        gains = []
        for mine, base in ((c.ours, first.ours), (c.theirs, first.theirs)):
            now, then = best_of(mine), best_of(base)
            assert now is not None
            assert then is not None
            gains.append(f"{now.name} {number(now.median / then.median)}x")
        result.notes.append(f"{c.what} against {first.what}: {', '.join(gains)}.")
    result.notes.append(
        "Each process has the machine's cores divided by their number as threads; batches are each process's own. "
        "open_clip: --local-loss --gather-with-grad, and DDP without the device_ids that its main.py names (DDP "
        "refuses them on a CPU)."
    )
    return result


def one(side: str, model: str, processes: int, batch: int, folder: str, args: argparse.Namespace) -> float:
    """Samples a second of one process in a fresh run of `processes` of them."""
    python = sys.executable if side == "diptych" else peer_python()
    threads = args.threads or max(1, len(os.sched_getaffinity(0)) // processes)
    out = Path(folder) / f"{side}.json"
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "benchmarks.scaling_process", "--side", side, "--model", model, "--folder", folder]
    command += ["--batch", str(batch), "--steps", str(1 if args.tiny else args.steps), "--out", str(out)]
    done = subprocess.run(
        [*command, "--device", args.device], cwd=ROOT, env=environment(threads), capture_output=True, text=True
    )
    if done.returncode:
        raise SideError(f"{side} failed with {processes} processes:\n{done.stderr[-3000:]}")
    print(f"  {side}, {processes} x {batch}", file=sys.stderr, flush=True)
    rate: float = json.loads(out.read_text())["rate"]
    return rate


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--model", default="ViT-S-32")
    options.add_argument("--processes", default="1,2")
    options.add_argument("--batches", default="16,64,256", help="pairs of each process")
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--device", default="cpu")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
