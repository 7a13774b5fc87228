"""Samples a second of a whole training step: same architecture and weights, same batch, same real captions."""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.figures import Comparison, Series, number
from benchmarks.options import names, parser, run
from benchmarks.record import Result, versions_of
from benchmarks.turns import SideError, Worker, in_turns, ours, peer

BATCH = {"ViT-bench-tiny": 64, "ViT-S-32": 128, "ViT-B-32": 64, "ViT-B-16": 32}


def measure(args: argparse.Namespace) -> Result:
    """Each model in turn; eager and compiled on both sides, each side's better one counts."""
    result = Result("step")
    for model in ["ViT-bench-tiny"] if args.tiny else names(args.models):
        batch = 8 if args.tiny else args.batch or BATCH.get(model, 64)
        result.comparisons.append(_compare(model, batch, args, result))
    return result


def _compare(model: str, batch: int, args: argparse.Namespace, result: Result) -> Comparison:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        given = {"batch": batch, "device": args.device, "longer": args.longer}
        workers: list[Worker] = []
        first: dict[str, Any] = {}
        for compiled in (False, True) if args.compile == "both" else (args.compile == "on",):
            kind = "compiled" if compiled else "eager"
            theirs = stack.enter_context(peer("step", f"open_clip {kind}", args.threads))
            theirs.ask("open", model=model, compile=compiled, **given)
            if not first:
                theirs.ask("export", folder=folder)
            mine = stack.enter_context(ours("step", f"diptych {kind}", args.threads))
            about = mine.ask("open", folder=folder, compile=compiled, **given)
            if not first:
                first = {"about": about, "evidence": agreement(mine.ask("check"), theirs.ask("check"))}
            workers += [theirs, mine]
        steps = 1 if args.tiny else args.steps
        workers, failed = _warmed(workers, args.warmup)
        found = in_turns(workers, args.rounds, "run", steps=steps)
        result.versions |= versions_of(workers)
        work = next(w for w in workers if w.name.startswith("diptych")).ask("work")
    rates = {k: Series(k, tuple(x["rate"] for x in v)) for k, v in found.items()}
    note = (
        f"{model}: {about_of(first['about'])}; {steps} steps a turn; {first['evidence']}. Memory: "
        + ", ".join(f"{k} {max(x['memory_mb'] for x in v):,.0f} MB" for k, v in found.items())
        + f". A pair needs {work['flops'] / 1e9:.1f} GFLOP forward and backward; large bfloat16 matrix products ran at "
        f"{work['matrix_tflops']:.3g} TFLOP/s just now, of which the steps use "
        + ", ".join(f"{k} {s.median * work['flops'] / work['matrix_tflops'] / 1e10:.0f} %" for k, s in rates.items())
        + " (padding that a side computes is not counted as use)."
    )
    mine_, theirs_ = (tuple(s for k, s in rates.items() if k.startswith(n)) for n in ("diptych", "open_clip"))
    goals = (1.3, None) if args.device.startswith("cuda") else (2.0, 3.0)
    return Comparison(f"{model}, batch {batch}", mine_, theirs_, *goals, notes=(note, *failed))


def _warmed(workers: list[Worker], steps: int) -> tuple[list[Worker], list[str]]:
    """Those that take their first steps, and what is to be said of compiled ones that cannot."""
    able, failed = [], []
    for worker in workers:
        try:
            worker.ask("run", steps=steps)
            able.append(worker)
        except SideError as error:
            if not worker.name.endswith("compiled"):
                raise
            failed.append(f"{worker.name} does not run here: {str(error).splitlines()[0][:300]}")
    return able, failed


def about_of(about: dict[str, Any]) -> str:
    """What the batches are."""
    return (
        f"{about['side']} px, captions of {about['tokens']:.1f} tokens on average (of 77), {about['threads']} threads"
    )


def agreement(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Evidence, in words, that both sides compute the same function of the same weights and batch."""
    apart = max(
        abs(a - b)
        for name in ("image", "text")
        for x, y in zip(mine[name], theirs[name], strict=True)
        for a, b in zip(x, y, strict=True)
    )
    return (
        f"on the same weights and batch in float32 the losses are {mine['loss']:.6f} and {theirs['loss']:.6f} "
        f"(open_clip), the gradient's norms {mine['norm']:.5f} and {theirs['norm']:.5f}, embeddings at most "
        f"{number(apart)} apart; in bfloat16 the losses are {mine['loss_bf16']:.4f} and {theirs['loss_bf16']:.4f}"
    )


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__)
    options.add_argument("--models", default="ViT-S-32,ViT-B-32", help="names of open_clip, or of benchmarks/models")
    options.add_argument("--batch", type=int, default=0, help="pairs a batch (0: one that suits the model)")
    options.add_argument("--steps", type=int, default=4, help="steps a turn")
    options.add_argument("--warmup", type=int, default=4, help="steps before, which compile")
    options.add_argument("--longer", type=int, default=1, help="captions joined to one: longer texts")
    options.add_argument("--compile", choices=("both", "on", "off"), default="both")
    options.add_argument("--device", default="cpu")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
