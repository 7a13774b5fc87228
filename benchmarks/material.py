"""What both sides are given alike: real captions, and pixels that are a function of a seed. Needs only numpy."""

import os
from pathlib import Path

import numpy as np

CAPTIONS = Path(__file__).with_name("captions.txt")
"""4,096 captions: emoji and Open Clip Art pooled, records drawn evenly, each record's caption drawn by its weight as in
training (seed 0). Written by the first benchmark that is run, or by `python -m benchmarks.make_material captions`: a
machine without a network is given the file ($BENCH_CAPTIONS, if it lies elsewhere)."""


def captions(count: int, start: int = 0) -> list[str]:
    """`count` captions from number `start` on; after the last the first comes again."""
    lines = Path(os.environ.get("BENCH_CAPTIONS") or CAPTIONS).read_text(encoding="utf-8").splitlines()
    return [lines[(start + i) % len(lines)] for i in range(count)]


def pixels(count: int, side: int, seed: int = 0) -> np.ndarray:
    """`count` random RGB pictures, uint8 (count, 3, side, side)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def model_file(name: str) -> str | None:
    """The configuration in benchmarks/models that is called `name`; None: open_clip's own."""
    path = Path(__file__).with_name("models") / f"{name}.json"
    return str(path) if path.exists() else None
