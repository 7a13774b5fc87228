"""Seconds until open_clip's own final recall on the unseen artist, and the recall at equal time.

Two stages, which may be run apart: "grid" trains open_clip once with each learning rate, "race" lets both train in
turn, open_clip with the rate that served it best. What is known is kept in a state file and not done again.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Comparison, Series, table
from benchmarks.options import names, parser, run
from benchmarks.record import Result, versions_of
from benchmarks.turns import Worker, ours, peer


def measure(args: argparse.Namespace) -> Result:
    """Both stages, or the one that is asked for."""
    from diptych.data.corpora.corpus import get

    if args.tiny:
        args.model, args.budget, args.points, args.batch, args.warmup = "ViT-bench-tiny", 64, 2, 16, 16
        args.recipe_settings = [*args.recipe_settings, "train.global_batch=16", "train.warmup_samples=16"]
        args.ours_budget, args.lr = 64, args.lr.split(",")[0]
    data = Path(args.data or get("emoji"))
    result = Result("time_to_accuracy")
    with peer("race", threads=args.threads) as theirs:
        given = {"source": args.peer_input, "captions": args.peer_captions, "compile": args.compile == "on"}
        theirs.ask("open", model=args.model, data=str(data), batch=args.batch, more=args.peer_options, **given)
        state = _state(args, data)
        _grid(theirs, state, data, args)
        result.notes += _described_grid(state)
        if args.stage != "grid":
            _race(theirs, state, data, args, result)
        if not result.versions:
            result.versions = versions_of([theirs])
    return result


def _grid(theirs: Worker, state: dict[str, Any], data: Path, args: argparse.Namespace) -> None:
    """Train with each rate that is not known yet."""
    for lr in names(args.lr):
        if lr not in state["grid"]:
            out = str(args.work / f"grid-{lr}")
            found = theirs.ask("run", lr=float(lr), out=out, **_length(args))
            state["grid"][lr] = [_summary(j) for j in _judged(data, found)]
            _save(state, args)


def _race(theirs: Worker, state: dict[str, Any], data: Path, args: argparse.Namespace, result: Result) -> None:
    best = _best(state)
    with tempfile.TemporaryDirectory() as folder, ours("race", threads=args.threads) as mine:
        if args.towers == "same":
            theirs.ask("export", folder=folder)
        towers = folder if args.towers == "same" else ""
        mine.ask("open", name=args.recipe, settings=args.recipe_settings, data=str(data), towers=towers)
        result.versions = versions_of([theirs, mine])
        faster, theirs_s, mine_s = [], [], []
        for turn in range(args.rounds):
            out = args.work / f"race-{turn}"
            other = _judged(data, theirs.ask("run", lr=float(best), out=str(out / "peer"), seed=turn, **_length(args)))
            budget = {"points": args.points, "samples": args.ours_budget, "seed": turn}
            own = _judged(data, mine.ask("run", out=str(out / "ours"), **budget))
            lines, when = _compared(turn, own, other)
            result.notes += lines
            result.body += f"\nTurn {turn}, text-to-image R@1 on the test split:\n\n{_curves(own, other)}\n"
            faster.append(when is not None)
            theirs_s.append(other[-1].seconds)
            mine_s.append(own[-1].seconds if when is None else when)
    if all(faster):
        what = f"{args.model}, seconds to open_clip's final R@1 ({args.towers} towers)"
        sides = (Series(n, tuple(v), "s", lower=True) for n, v in (("diptych", mine_s), ("open_clip", theirs_s)))
        own_s, other_s = sides
        goal = 6.0 if args.towers == "same" else 10.0
        result.comparisons.append(Comparison(what, (own_s,), (other_s,), 3.0, goal))
    else:
        result.notes.append(
            f"In {faster.count(False)} of {len(faster)} turns ours did NOT REACH open_clip's final R@1."
        )


def _compared(turn: int, own: list[Any], other: list[Any]) -> tuple[list[str], float | None]:
    """What a turn showed, in words, and when ours first reached the peer's last recall."""
    from benchmarks.recall import at_time, difference, reached

    last = other[-1]
    when = reached(own, last.recall)
    lines = [
        f"Turn {turn}: open_clip ends at {last.described} after {last.seconds:.1f} s ({last.samples:,} samples); ours "
        + (f"is there after {when:.1f} s" if when is not None else "does not get there")
        + f", and ends at {own[-1].described} after {own[-1].seconds:.1f} s ({own[-1].samples:,} samples)."
    ]
    then = at_time(own, last.seconds)
    if then is not None:
        lines.append(f"Turn {turn}: at equal time ours is ahead by {difference(then, last)}; targets: +5 / +8 points.")
    return lines, when


def _curves(own: list[Any], other: list[Any]) -> str:
    rows = [
        (side, f"{j.samples:,}", f"{j.seconds:.1f}", j.described)
        for side, curve in (("diptych", own), ("open_clip", other))
        for j in curve
    ]
    return table(("side", "samples", "seconds", "R@1 [95 %]"), rows)


def _judged(data: Path, found: dict[str, Any]) -> list[Any]:
    from benchmarks.recall import judge
    from diptych.data.dataset import Dataset

    split = Dataset.open(data).split("test")
    return [judge(split, point) for point in found["points"]]


def _summary(judged: Any) -> dict[str, Any]:
    return {"samples": judged.samples, "seconds": judged.seconds, "recall": judged.recall, "said": judged.described}


def _length(args: argparse.Namespace) -> dict[str, Any]:
    return {"samples": args.budget, "warmup": args.warmup, "points": args.points}


def _best(state: dict[str, Any]) -> str:
    """The rate whose last recall is highest: chosen on the test artist itself, which favours the peer."""
    return max(state["grid"], key=lambda lr: state["grid"][lr][-1]["recall"])


def _described_grid(state: dict[str, Any]) -> list[str]:
    found = ", ".join(f"{lr}: {v[-1]['said']} in {v[-1]['seconds']:.0f} s" for lr, v in state["grid"].items())
    return [f"open_clip's final R@1 by learning rate: {found}. Its best, {_best(state)}, is chosen on the test artist."]


def _state(args: argparse.Namespace, data: Path) -> dict[str, Any]:
    """What is known already of exactly these settings."""
    args.work = Path(args.work or tempfile.mkdtemp(prefix="bench-race-"))
    args.work.mkdir(parents=True, exist_ok=True)
    args.state = args.state or args.work / "state.json"
    peers = {k: str(getattr(args, k)) for k in ("model", "batch", "budget", "warmup", "points", "compile")}
    peers |= {"data": str(data), "input": args.peer_input, "captions": args.peer_captions, "more": args.peer_options}
    if args.state.exists():
        known: dict[str, Any] = json.loads(args.state.read_text())
        if known["settings"] == peers:
            return known
        raise SystemExit(f"{args.state} is of other settings ({known['settings']}). Name another, or remove it.")
    return {"settings": peers, "grid": {}}


def _save(state: dict[str, Any], args: argparse.Namespace) -> None:
    args.state.write_text(json.dumps(state, indent=1))


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__, rounds=1)
    options.add_argument("--stage", choices=("grid", "race", "both"), default="both")
    options.add_argument("--data", default="", help="a packed dataset with train and test (default: the emoji corpus)")
    options.add_argument("--model", default="ViT-bench-tiny", help="the peer's: a name, or one of benchmarks/models")
    options.add_argument("--budget", type=int, default=120_000, help="samples of the peer's run")
    options.add_argument("--warmup", type=int, default=12_000, help="samples of the peer's warm-up")
    options.add_argument("--batch", type=int, default=256, help="of the peer's run")
    options.add_argument("--lr", default="5e-4,1e-3,2e-3,4e-3", help="the peer's grid")
    options.add_argument("--points", type=int, default=12, help="evaluations on the way, on both sides")
    options.add_argument("--peer-input", choices=("memory", "wds"), default="memory")
    options.add_argument("--peer-captions", choices=("first", "draw"), default="first")
    options.add_argument("--peer-options", default="", help="further options of open_clip_train.main")
    options.add_argument("--compile", choices=("on", "off"), default="off", help="of the peer")
    options.add_argument("--recipe", default="clip:tiny", help="ours")
    options.add_argument("--ours-budget", type=int, default=0, help="samples of our run (0: the recipe's)")
    options.add_argument("--towers", choices=("same", "own"), default="same", help="the peer's towers, or the recipe's")
    options.add_argument("--work", default="", help="folder for embeddings and runs (default: a temporary one)")
    options.add_argument("--state", type=Path, help="file of what is known (default: in --work)")
    options.add_argument("recipe_settings", nargs="*", help="field.sub=value of our recipe")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
