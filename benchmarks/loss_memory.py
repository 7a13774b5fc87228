"""Peak extra memory and time of the contrastive and the sigmoid loss, forward and backward, over N pairs.

Each measurement is a process of its own (`benchmarks.loss_process`), so that no measurement inherits another's memory.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import Comparison, Series, number
from benchmarks.options import names, numbers, parser, run
from benchmarks.record import Result, available_bytes, versions_in
from benchmarks.turns import ROOT, SideError, environment, peer_python

DENSE_MATRICES = 5.0
"""N x N float32 matrices that open_clip's losses hold at their peak (measured here: 4.6 to 5.8)."""

SPARE = 1_500_000_000
"""Bytes that are left to the rest of the machine."""

BF16 = "open_clip under bfloat16 autocast"
SIDES = ("diptych", "open_clip", BF16)


def measure(args: argparse.Namespace) -> Result:
    """Each loss at each size, sides in turn."""
    result = Result("loss_memory", versions=versions_in({"diptych": sys.executable, "open_clip": peer_python()}))
    for loss in names(args.losses):
        for pairs in [1024] if args.tiny else numbers(args.pairs):
            sides = SIDES if args.autocast else SIDES[:2]
            found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
            for _ in range(args.rounds):
                for side in sides:
                    failed = any("error" in x for x in found[side])  # it would fail again
                    found[side].append(found[side][-1] if failed else one(side, loss, pairs, args))
            result.comparisons += _compare(f"{loss}, N = {pairs:,}, d = {args.width}", pairs, found)
            result.notes += _notes(loss, pairs, found)
    return result


def one(side: str, loss: str, pairs: int, args: argparse.Namespace) -> dict[str, Any]:
    """One measurement, or {"error": ...} where the machine's memory does not suffice."""
    room = available_bytes() - SPARE
    dense = DENSE_MATRICES * 4 * pairs**2
    if side != "diptych" and args.device == "cpu" and dense > 1.4 * room:
        return {"error": f"needs about {dense / 1e9:.0f} GB; {room / 1e9:.0f} GB are free"}
    command = [sys.executable if side == "diptych" else peer_python(), "-m", "benchmarks.loss_process"]
    command += ["--side", side.split()[0], "--loss", loss, "--pairs", str(pairs), "--width", str(args.width)]
    command += ["--device", args.device, "--passes", str(args.passes)]
    command += ["--limit", str(room)] if args.device == "cpu" else []
    command += ["--autocast"] if side == BF16 else []
    done = subprocess.run(command, cwd=ROOT, env=environment(args.threads), capture_output=True, text=True)
    if done.returncode == -9:
        return {"error": "killed for want of memory"}
    if done.returncode:
        raise SideError(f"{side} failed at {pairs:,} pairs:\n{done.stderr[-2000:]}")
    print(f"  {side}, {loss}, {pairs:,}", file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _compare(what: str, pairs: int, found: dict[str, list[dict[str, Any]]]) -> list[Comparison]:
    """Memory and time, in float32 on both sides; what did not fit has no series. The target is for many pairs."""
    rows = []
    for kind, target, meant in (("memory", 20.0 if pairs >= 1 << 15 else None, None), ("time", 1.0, 2.0)):
        series = {
            side: Series(
                side,
                tuple(x["extra_mb"] if kind == "memory" else min(x["seconds"]) for x in turns),
                "MB" if kind == "memory" else "s",
                lower=True,
            )
            for side, turns in found.items()
            if not any("error" in x for x in turns)
        }
        mine = tuple(s for k, s in series.items() if k == "diptych")
        theirs = tuple(s for k, s in series.items() if k == "open_clip")
        rows.append(Comparison(f"{kind}: {what}", mine, theirs, target, meant))
        if BF16 in series:
            rows.append(Comparison(f"{kind}: {what}, ours in float32 against bfloat16", mine, (series[BF16],)))
    return rows


def _notes(loss: str, pairs: int, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    notes = []
    for side, turns in found.items():
        last = turns[-1]
        if "error" in last:
            notes.append(f"{loss}, {pairs:,} pairs, {side}: does not fit here ({last['error']}).")
        else:
            norms = ", ".join(number(x) for x in last["norms"])
            notes.append(f"{loss}, {pairs:,} pairs, {side}: loss {last['loss']:.6f}, gradient norms {norms}.")
    if BF16 in found and "error" not in found[BF16][-1]:
        notes.append(
            "Under autocast open_clip's logits are bfloat16: near 20 they are 1/8 apart, near 100 one half. Memory and "
            "time are other than in float32, and its loss is not the same number; ours keeps float32."
        )
    return notes


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--losses", default="contrastive,sigmoid")
    options.add_argument("--pairs", default="8192,16384,32768")
    options.add_argument("--width", type=int, default=512)
    options.add_argument("--passes", type=int, default=1, help="passes in each process, the fastest of which counts")
    options.add_argument("--autocast", action="store_true", help="also open_clip's losses in bfloat16")
    options.add_argument("--device", default="cpu")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
