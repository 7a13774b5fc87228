"""torch.compile by blocks: one compilation for all that are alike, kept on disk for the next start.

Compiling a whole tower takes minutes and grows with its depth; its blocks are copies of each other, so one serves for
all (24 blocks of two towers are two compilations a pass). Values differ from plain ones by rounding.
"""

import os
import shutil
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from diptych.core.files import cache_dir
from diptych.models.tower import TextTower
from diptych.nn.checkpointing import recomputable_blocks

WORTH_IT = 1000
"""Steps from which on "auto" compiles: a first start takes one to three minutes, which a run should win back."""


def compiles(wanted: bool | Literal["auto"], device: torch.device, steps: int) -> tuple[bool, str]:
    """Whether a run's blocks are compiled, and why.

    "auto": on CUDA, where elementwise work between products is bound by memory, which compilation saves, and if what it
    takes is there. On a CPU a ViT-S/32 in bfloat16 ran 1.01 to 1.04 times as fast, which no start is worth.
    """
    if wanted != "auto":
        return wanted, "given"
    if device.type != "cuda":
        return False, "on a CPU it gains next to nothing"
    if steps < WORTH_IT:
        return False, f"{steps:,} steps are over before it pays"
    if find_spec("triton") is None:
        return False, "triton is not installed"
    if not any(map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))):
        return False, "there is no C compiler"
    return True, "chosen for CUDA"


def compile_blocks(module: nn.Module, backend: str = "inductor") -> int:
    """Compile every recomputable block inside `module` (of transformers and residual nets); how many there are.

    Comes before activation checkpointing and sharding, which wrap what they find. Blocks of text towers are compiled
    for any number of tokens at once, since packed batches differ in it; other shapes settle by themselves. Random
    numbers are the plain ones, so that a pass with gradient draws what the one without has drawn (accumulate.py).
    """
    _keep_on_disk()
    blocks = recomputable_blocks(module)
    texts = [m for m in module.modules() if isinstance(m, TextTower)]
    varying = {id(block) for text in texts for block in recomputable_blocks(text)}
    for block in blocks:
        dynamic = True if id(block) in varying else None
        run = _compiled(type(block), dynamic, backend)  # type: ignore[arg-type]  # a class can be a key
        block.forward = partial(run, block)  # not a bound method: a deep copy's forward is the copy's
    return len(blocks)


@lru_cache(maxsize=64)
def _compiled(kind: type[nn.Module], dynamic: bool | None, backend: str) -> Callable[..., Any]:
    options: dict[str, Any] | None = {"fallback_random": True} if backend == "inductor" else None
    # torch caches by code object: text and image blocks share theirs, in training and not, with and without a mask
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return torch.compile(kind.forward, dynamic=dynamic, backend=backend, options=options)


def _keep_on_disk() -> None:
    """Let what is compiled outlive the process, and not in a folder for temporary files that all may write to."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir("compiled")))
