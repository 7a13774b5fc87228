"""Activation checkpointing: a block keeps only its input, and computes the rest again when the gradient comes by.

The same function and the same gradient (Chen et al. 2016, arXiv:1604.06174): random draws are replayed from the random
state that the first pass started from, and batch norms note their running statistics in the first pass only. A class
says with ``recomputable = True`` that it is such a block.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def set_checkpointing(module: nn.Module, on: bool) -> int:
    """Turn the checkpointing of every recomputable block inside `module` on or off; returns how many there are.

    Names, weights and hooks stay as they are. What a block's forward has become before (compiled, say) is what is run.
    """
    blocks = recomputable_blocks(module)
    for block in blocks:
        old: Any = block.__dict__.get("forward")
        if on and not _is_ours(old):
            block.forward = partial(_forward, block, old)  # not a closure: a deep copy's forward is the copy's
        elif not on and _is_ours(old):
            before = old.args[1]
            if before is None:
                del block.forward
            else:
                block.forward = before
    return len(blocks)


def is_checkpointed(module: nn.Module) -> bool:
    """Whether some block inside `module` computes its activations again."""
    return any(_is_ours(block.__dict__.get("forward")) for block in recomputable_blocks(module))


def recomputable_blocks(module: nn.Module) -> list[nn.Module]:
    """The outermost blocks of `module` whose class says that it can be computed again."""
    if getattr(type(module), "recomputable", False):
        return [module]
    return [block for child in module.children() for block in recomputable_blocks(child)]


def _is_ours(forward: Any) -> bool:
    return isinstance(forward, partial) and forward.func is _forward


def _forward(block: nn.Module, inner: Callable[..., Any] | None, *args: Any, **kwargs: Any) -> Any:
    run = partial(type(block).forward, block) if inner is None else inner
    if not torch.is_grad_enabled():
        return run(*args, **kwargs)
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=True, **kwargs)
    return checkpoint(run, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), _on_copies(norms)), **kwargs)


def _on_copies(norms: list[_BatchNorm]) -> AbstractContextManager[None]:
    """Batch norms note into copies of their running statistics, which are then thrown away.

    Not `track_running_stats = False`: another set of tensors would then be saved than in the first pass.
    """

    @contextmanager
    def swapped() -> Iterator[None]:
        true = [dict(m._buffers) for m in norms]
        for m in norms:
            m._buffers.update({name: None if b is None else b.clone() for name, b in m._buffers.items()})
        try:
            yield
        finally:
            for m, buffers in zip(norms, true, strict=True):
                m._buffers.update(buffers)

    return swapped()
