"""Images a second from files to a batch on the device: camera-size JPEGs in a folder, and shards at 256 pixels."""

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.figures import Comparison, Series
from benchmarks.options import names, parser, run
from benchmarks.record import Result, versions_of
from benchmarks.turns import in_turns, ours, peer

CORES = len(os.sched_getaffinity(0))


def measure(args: argparse.Namespace) -> Result:
    """Both sources; one core (no workers, one thread), and all cores with workers."""
    from benchmarks.make_material import packed_photos, photos

    count, shape = (12, (300, 200)) if args.tiny else (args.photos, (3000, 2000))
    small = 12 if args.tiny else args.small
    result = Result("input")
    for source in names(args.sources):
        if source == "folder":
            theirs, mine = str(photos(count, *shape) / "photos.csv"), str(packed_photos(count, 0, CORES, *shape))
            what, target, meant = f"{shape[0]} x {shape[1]} JPEGs", 3.0, 4.0
            records = count
        else:
            packed = packed_photos(small, 256, 2 * CORES, *((300, 300) if args.tiny else (512, 512)))
            theirs, mine, records = str(packed / "train"), str(packed), small
            what, target, meant = "shards at 256 px", 2.0, 3.0
        for workers in (0, CORES):
            at = "one core" if workers == 0 else f"{CORES} cores"
            given = {"target": target if workers == 0 else None, "meant": meant if workers == 0 else None}
            result.comparisons.append(_compare(f"{what}, {at}", theirs, mine, records, workers, given, args, result))
    result.notes += [
        "Ours reads the JPEGs from the tars that `diptych pack` wrote, byte for byte those of the folder; packing is "
        "paid once and not counted. Both tokenise the captions; neither keeps pixels between epochs.",
        "The peer brings normalised float32, ours uint8, which the model normalises on the device.",
        "decode=scaled: JPEGs of more than twice the wanted side are decoded at a smaller scale, and pixels change by "
        "about half a grey level: the same pixels are those of decode=full.",
    ]
    return result


def _compare(
    what: str,
    theirs: str,
    mine: str,
    records: int,
    workers: int,
    targets: dict[str, float | None],
    args: argparse.Namespace,
    result: Result,
) -> Comparison:
    batch = 4 if args.tiny else args.batch
    # long against what workers have ready when the clock starts
    batches = max(1 if args.tiny else args.images // batch, 8 * workers)
    side = 32 if args.tiny else 224
    given: dict[str, Any] = {"batch": batch, "device": args.device, "side": side}
    with ExitStack() as stack:
        other = stack.enter_context(peer("input", threads=0 if workers else 1))
        other.ask(
            "open",
            source=theirs,
            workers=workers,
            records=max(records, (batches + 8 * (workers or 1)) * batch),
            **given,
        )
        sides = [other]
        for decode in names(args.decode):
            one = stack.enter_context(ours("input", f"diptych decode={decode}", threads=0 if workers else 1))
            one.ask("open", source=mine, workers=-1 if workers else 0, decode=decode, **given)
            sides.append(one)
        for worker in sides:
            worker.ask("run", batches=1)
        found = in_turns(sides, args.rounds, "run", batches=batches)
        result.versions |= versions_of(sides)
    series = {k: Series(k, tuple(x["rate"] for x in v), "images/s") for k, v in found.items()}
    cpu = ", ".join(f"{k} {min(x['cpu_s'] for x in v) * 1e3:.1f}" for k, v in found.items())
    note = f"{what}: milliseconds of CPU an image (least disturbed turn): {cpu}."
    return Comparison(
        what,
        tuple(s for k, s in series.items() if k.startswith("diptych")),
        (series[other.name],),
        targets["target"],
        targets["meant"],
        (note,),
    )


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__, rounds=5)
    options.add_argument("--sources", default="folder,shards")
    options.add_argument("--photos", type=int, default=32, help="camera-size JPEGs in the folder")
    options.add_argument("--small", type=int, default=1024, help="pictures in the shards at 256 px")
    options.add_argument("--images", type=int, default=128, help="images a turn")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--decode", default="full,scaled", help="settings of data.decode to try")
    options.add_argument("--device", default="cpu")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
