"""All that a GPU changes: step, accumulation, losses, zero-shot classifiers and locked towers of B/32, B/16 and L/14.

Needs no network. On a machine where packages are missing it says which (`--check`): both sides run on one interpreter
there, $BENCH_PYTHON or this one. Where open_clip cannot be imported, our steps are measured alone and that is said.
``--device cpu --tiny`` shows that it works.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable

from benchmarks import accumulate, locked, loss_memory, step, zero_shot_build
from benchmarks.figures import Comparison, Series
from benchmarks.options import names, parser, run
from benchmarks.record import Result, versions_of
from benchmarks.turns import PEER_PYTHON, ROOT, SideError, in_turns, ours

NEEDED = {  # module: the package that brings it
    **{name: name for name in ("torch", "numpy", "safetensors", "tokenizers", "pydantic", "pyarrow", "simplejpeg")},
    **{name: name for name in ("ftfy", "jaxtyping", "psutil", "typer", "rich", "wcwidth", "annotated_types")},
    "PIL": "pillow",
    "pydantic_core": "pydantic_core",
    "typing_inspection": "typing-inspection",
}
PEERS = {"open_clip": "open_clip_torch", "torchvision": "torchvision", "timm": "timm", "regex": "regex"}
PEERS |= {"webdataset": "webdataset", "braceexpand": "braceexpand", "pandas": "pandas"}

MODELS = {"ViT-B-32": 1024, "ViT-B-16": 512, "ViT-L-14": 256}
"""Pairs a step that fill a card of 80 GB or more."""

SIZES = {"ViT-B-32": "vit_b32", "ViT-B-16": "vit_b16", "ViT-L-14": "vit_l14"}
"""Our names of them."""

USE = {"ViT-B-32": 45, "ViT-B-16": 50, "ViT-L-14": 55}
"""Per cent of the measured matrix rate that are meant."""


def missing() -> list[str]:
    """Packages that this interpreter lacks, ours first."""
    wanted = {**NEEDED, **PEERS}
    return [package for module, package in wanted.items() if importlib.util.find_spec(module) is None]


def measure(args: argparse.Namespace) -> Result:
    """Each part in turn, as its own command would; their results in one."""
    lacking = missing()
    if args.check or any(p in NEEDED.values() for p in lacking):
        raise SystemExit(_said(lacking))
    if not os.environ.get("BENCH_PYTHON") and not PEER_PYTHON.exists():
        os.environ["BENCH_PYTHON"] = sys.executable
    can = subprocess.run(
        [os.environ.get("BENCH_PYTHON", str(PEER_PYTHON)), "-c", "import benchmarks.peer.trainer"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if can.returncode:
        return _alone(args, f"open_clip's trainer cannot be imported ({can.stderr.splitlines()[-1]})")
    whole = Result("gpu")
    for part in names(args.parts):
        for given in _commands(part, args):
            print(f"{part} {' '.join(given)}", file=sys.stderr, flush=True)
            module, arguments = PARTS[part]
            try:
                found = module(arguments(given))
            except SideError as error:  # the other parts are worth their time all the same
                print(error, file=sys.stderr, flush=True)
                whole.notes.append(f"{part} {' '.join(given)} FAILED: {str(error).splitlines()[0][:300]}")
                continue
            whole.comparisons += found.comparisons
            whole.notes += found.notes
            whole.versions |= found.versions
    if not args.tiny:
        whole.notes.append("Meant use of the matrix rate: " + ", ".join(f"{k} {v} %" for k, v in USE.items()) + ".")
    return whole


def _alone(args: argparse.Namespace, why: str) -> Result:
    """Our steps, with nothing to compare them to."""
    result = Result("gpu", notes=[f"{why}: ours alone, fresh weights. {_said(missing())}"])
    for model, size in SIZES.items():
        if model not in names(args.models):
            continue
        for compiled in (False, True):
            with ours("step", f"diptych {'compiled' if compiled else 'eager'}", args.threads) as mine:
                batch = 4 if args.tiny else MODELS[model]
                mine.ask("open", folder=f"sizes:{size}", batch=batch, device=args.device, compile=compiled)
                try:
                    mine.ask("run", steps=1 if args.tiny else 8)
                except SideError as error:
                    result.notes.append(f"{model}, {mine.name} FAILED: {str(error).splitlines()[0][:300]}")
                    continue
                found = in_turns([mine], args.rounds, "run", steps=1 if args.tiny else 20)[mine.name]
                work = mine.ask("work")
                result.versions |= versions_of([mine])
            rates = Series(mine.name, tuple(x["rate"] for x in found))
            result.comparisons.append(Comparison(f"{model}, batch {batch}", (rates,)))
            used = rates.median * work["flops"] / work["matrix_tflops"] / 1e10
            result.notes.append(f"{model}, {mine.name}: {used:.0f} % of {work['matrix_tflops']:.0f} TFLOP/s.")
        if args.tiny:
            break
    return result


PARTS: dict[str, tuple[Callable[[argparse.Namespace], Result], Callable[[list[str]], argparse.Namespace]]] = {
    "step": (step.measure, step.arguments),
    "accumulate": (accumulate.measure, accumulate.arguments),
    "loss_memory": (loss_memory.measure, loss_memory.arguments),
    "zero_shot_build": (zero_shot_build.measure, zero_shot_build.arguments),
    "locked": (locked.measure, locked.arguments),
}


def _commands(part: str, args: argparse.Namespace) -> list[list[str]]:
    """The command lines of a part."""
    common = ["--device", args.device, "--rounds", str(args.rounds), *(["--tiny"] if args.tiny else [])]
    if args.tiny and part in ("step", "accumulate"):
        return [[*common, "--compile", "off"]]
    if args.tiny:
        return [common]
    models = names(args.models)
    if part == "step":
        more = ["--steps", "20", "--warmup", "8", "--compile", args.compile]
        return [[*common, *more, "--models", m, "--batch", str(MODELS.get(m, 256))] for m in models]
    if part == "accumulate":
        size = ["--accum", "16", "--compile", "on", "--warmup", "2", "--steps", "2"]
        return [[*common, *size, "--models", m, "--micro", str(MODELS.get(m, 256) // 2)] for m in models]
    if part == "loss_memory":
        return [[*common, "--autocast", "--passes", "5"]]
    if part == "locked":
        return [[*common, "--models", m, "--batch", "512", "--records", "4096", "--workers", "8"] for m in models]
    return [[*common, "--model", m] for m in models]


def _said(lacking: list[str]) -> str:
    if not lacking:
        return "every package is here."
    own = [p for p in lacking if p in NEEDED.values()]
    peers = [p for p in lacking if p not in own]
    return (
        f"missing: for diptych {', '.join(own) or 'nothing'}; for open_clip {', '.join(peers) or 'nothing'}. "
        "Without a network, carry them as wheels: `pip download --no-deps --only-binary=:all: -d wheels NAME` on a "
        "machine that has one, then `pip install --no-index --no-deps --target SITE wheels/*.whl` and PYTHONPATH=SITE. "
        "open_clip_torch is wanted in any case: CLIP's vocabulary is in it."
    )


def main() -> None:
    """The command."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--parts", default="step,accumulate,loss_memory,zero_shot_build,locked")
    options.add_argument("--models", default=",".join(MODELS))
    options.add_argument("--compile", choices=("both", "on", "off"), default="both")
    options.add_argument("--device", default="cuda")
    options.add_argument("--check", action="store_true", help="only say which packages are missing")
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
