"""Samples a second with the image tower locked, after the first epoch: read from a table, or computed each time."""

import argparse
import os
import tempfile
from collections.abc import Sequence

from benchmarks.figures import Comparison, Series, number
from benchmarks.options import names, parser, run
from benchmarks.record import Result, versions_of
from benchmarks.turns import in_turns, ours, peer

CORES = len(os.sched_getaffinity(0))


def measure(args: argparse.Namespace) -> Result:
    """Each model in turn."""
    result = Result("locked")
    for model in ["ViT-bench-tiny"] if args.tiny else names(args.models):
        result.comparisons.append(_compare(model, args, result))
    result.notes += [
        "open_clip decodes the JPEGs and runs the frozen tower in every step; ours does so once, before the steps that "
        "are counted here, and then reads vectors.",
        "A table holds one view of each image (train.cached_crops=0: not augmented), where open_clip draws a crop of "
        "90 to 100 % each time; --crops N keeps N augmented views, of which one is drawn.",
    ]
    return result


def _compare(model: str, args: argparse.Namespace, result: Result) -> Comparison:
    from benchmarks.make_material import packed_photos

    batch, steps, records = (8, 2, 24) if args.tiny else (args.batch, args.steps, args.records)
    shape = (300, 300) if args.tiny else (512, 512)
    source = packed_photos(records, 256, 2 * CORES, *shape)
    compiled = args.compile == "on"
    with (
        tempfile.TemporaryDirectory() as folder,
        peer("locked", threads=args.threads) as theirs,
        ours("locked", threads=args.threads) as mine,
    ):
        given = {"model": model, "batch": batch, "device": args.device, "compile": compiled}
        theirs.ask("open", source=str(source / "train"), workers=args.workers, **given)
        theirs.ask("export", folder=folder)
        given = {"folder": folder, "batch": batch, "compile": compiled}
        mine.ask("open", source=str(source), crops=args.crops, **given)
        theirs.ask("run", steps=1)
        first = mine.ask("run", steps=1)
        found = in_turns((theirs, mine), args.rounds, "run", steps=steps)
        versions = versions_of((theirs, mine))
        mine.ask("close")
    result.versions |= versions
    note = (
        f"{model}: {records:,} pictures of 256 px; our first run with its table took {number(first['whole_s'])} s; "
        "peak memory: " + ", ".join(f"{k} {max(x['memory_mb'] for x in v):,.0f} MB" for k, v in found.items()) + "."
    )
    series = {k: Series(k, tuple(x["rate"] for x in v)) for k, v in found.items()}
    what = f"{model}, image tower locked, batch {batch}"
    return Comparison(what, (series[mine.name],), (series[theirs.name],), 15.0, 50.0, (note,))


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--models", default="ViT-B-32,ViT-B-16")
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--steps", type=int, default=6, help="steps a turn")
    options.add_argument("--records", type=int, default=512, help="pictures in the shards")
    options.add_argument("--workers", type=int, default=1, help="open_clip's --workers: on two cores one is its best")
    options.add_argument("--crops", type=int, default=0, help="our train.cached_crops")
    options.add_argument("--compile", choices=("on", "off"), default="off")
    options.add_argument("--device", default="cpu")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
