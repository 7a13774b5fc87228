"""Samples a second of a step over 16 micro-batches, against open_clip's --accum-freq 16."""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.figures import Comparison, Series
from benchmarks.options import names, parser, run
from benchmarks.record import Result, versions_of
from benchmarks.step import about_of, agreement
from benchmarks.turns import in_turns, ours, peer


def measure(args: argparse.Namespace) -> Result:
    """Each model in turn: pieces of the same size on both sides, and ours once more with pieces found by its probe."""
    result = Result("accumulate")
    for model in ["ViT-bench-tiny"] if args.tiny else names(args.models):
        result.comparisons += _compare(model, args, result)
    return result


def _compare(model: str, args: argparse.Namespace, result: Result) -> list[Comparison]:
    micro, accum = (4, 4) if args.tiny else (args.micro, args.accum)
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        compiled = args.compile == "on"
        given = {
            "batch": micro,
            "accum": accum,
            "device": args.device,
            "compile": compiled,
            "count": 2,
            "longer": args.longer,
        }
        theirs = stack.enter_context(peer("step", threads=args.threads))
        theirs.ask("open", model=model, **given)
        theirs.ask("export", folder=folder)
        mine = stack.enter_context(ours("step", "diptych, same pieces", args.threads))
        about = mine.ask("open", folder=folder, **given)
        workers = [theirs, mine]
        evidence = _evidence(model, folder, args.threads)
        if args.probe:
            probing = stack.enter_context(ours("step", "diptych, probed", args.threads))
            way = probing.ask("open", folder=folder, probe=True, **given)["way"]
            result.notes.append(f"{model}: the probe chose {way}.")
            workers.append(probing)
        for worker in workers:
            worker.ask("run", steps=args.warmup)
        found = in_turns(workers, args.rounds, "run", steps=1 if args.tiny else args.steps)
        result.versions |= versions_of(workers)
    rates = {k: Series(k, tuple(x["rate"] for x in v)) for k, v in found.items()}
    memory = ", ".join(f"{k} {max(x['memory_mb'] for x in v):,.0f} MB" for k, v in found.items())
    note = f"{model}: {about_of(about)}; {evidence} (32 pairs in one piece). Peak memory: {memory}."
    what = f"{model}, {accum} x {micro}"
    rows = [Comparison(what, (rates[mine.name],), (rates[theirs.name],), 1.25, 1.5, (note,))]
    if args.probe:
        free = "cut as the memory allows: more memory than the peer may be used"
        rows.append(Comparison(f"{what}; {free}", (rates["diptych, probed"],), (rates[theirs.name],), 1.25, 1.5))
    return rows


def _evidence(model: str, folder: str, threads: int) -> str:
    """That both sides compute the same, on 32 pairs in one piece: their loss and gradient are given as they are."""
    with peer("step", threads=threads) as theirs, ours("step", threads=threads) as mine:
        theirs.ask("open", model=model, batch=32, count=1)
        mine.ask("open", folder=folder, batch=32, count=1)
        return agreement(mine.ask("check"), theirs.ask("check"))


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__)
    options.add_argument("--models", default="ViT-B-32")
    options.add_argument("--micro", type=int, default=32, help="pairs a piece")
    options.add_argument("--accum", type=int, default=16, help="pieces a step")
    options.add_argument("--steps", type=int, default=1, help="steps a turn")
    options.add_argument("--warmup", type=int, default=1)
    options.add_argument("--longer", type=int, default=1, help="captions joined to one: longer texts")
    options.add_argument("--probe", action="store_true", help="also ours with train.micro_batch=-1")
    options.add_argument("--compile", choices=("on", "off"), default="off")
    options.add_argument("--device", default="cpu")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
