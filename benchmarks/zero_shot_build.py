"""Seconds to build a zero-shot classifier: 1,000 ImageNet classes in 80 prompts each, bfloat16 on both sides."""

import argparse
import tempfile
from collections.abc import Sequence

from benchmarks.figures import Comparison, Series
from benchmarks.options import parser, run
from benchmarks.record import Result, versions_of
from benchmarks.turns import in_turns, ours, peer


def measure(args: argparse.Namespace) -> Result:
    """Both sides in turn on the same weights and names."""
    model = "ViT-bench-tiny" if args.tiny else args.model
    classes = 10 if args.tiny else args.classes
    with (
        tempfile.TemporaryDirectory() as folder,
        peer("zero_shot", threads=args.threads) as theirs,
        ours("zero_shot", threads=args.threads) as mine,
    ):
        about = theirs.ask("open", model=model, device=args.device)
        theirs.ask("export", folder=folder)
        templates = mine.ask("open", folder=folder, names=about["names"], device=args.device)["templates"]
        for worker in (theirs, mine):
            worker.ask("run", classes=min(classes, 10))
        found = in_turns((theirs, mine), args.rounds, "run", classes=classes)
        versions = versions_of((theirs, mine))
    cosines = [
        sum(a * b for a, b in zip(x, y, strict=True))
        for x, y in zip(found[mine.name][0]["vectors"], found[theirs.name][0]["vectors"], strict=True)
    ]
    note = f"Smallest cosine between both sides' vectors of the first {len(cosines)} classes: {min(cosines):.5f}."
    if classes < len(about["names"]):
        note += f" {classes} of {len(about['names']):,} classes: the cost is linear in them on both sides."
    sides = [Series(k, tuple(x["seconds"] for x in v), "s", lower=True) for k, v in found.items()]
    what = f"{model}, {classes:,} classes x {templates} prompts"
    return Result("zero_shot_build", [Comparison(what, (sides[1],), (sides[0],), 4.0, 6.0, (note,))], versions)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--model", default="ViT-B-32")
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument("--device", default="cpu")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
