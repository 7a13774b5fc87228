"""One step over several processes: each holds all weights (DDP), or a part of them (FSDP2). The same function.

DDP (Li et al., 2020, arXiv:2006.15704) holds weights, gradients and moments on every process. FSDP2 (Zhao et al., 2023,
arXiv:2304.11277; torch's `fully_shard`) splits each along its first dimension, gathers a block's weights around its
forward and backward, and reduces its gradient to the part that each process owns. Both average gradients over
processes in float32, so they differ only in the order of sums.

What FSDP2 cannot do by itself, done here:

- weights are gathered around `forward` only, so every other method that runs layers is registered (`METHODS`);
- a tensor without dimensions (temperature, bias, gate) has no rows to split: it stays whole on every process, and
  `average_whole` averages its gradient;
- weights in another memory format are made contiguous, which is the same function: convolutions follow their input.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diptych.checkpoints.adapters import adapter_scale, merged
from diptych.checkpoints.native import build
from diptych.core.distributed import all_sum, initialised, is_main, world_size
from diptych.models.model import Model
from diptych.models.tower import ImageTower, TextTower
from diptych.nn.checkpointing import recomputable_blocks
from diptych.objectives.objective import Objective

UNITS: tuple[type[nn.Module], ...] = (ImageTower, TextTower, Objective)
"""Modules, besides recomputable blocks, whose own weights are gathered together and freed when their turn is over.

What of a model is in none of its blocks and towers (embeddings, heads, projections) belongs to the objective, which
holds it through the whole pass, so that a model may be entered by any of its methods.
"""

METHODS = ("encode", "loss", "health", "tokens", "tokens_of_masked", "states", "padded")
"""Methods besides `forward` through which units are entered: objectives by the loop, towers by models. One that is
missing here finds a part of a weight where it needs the whole, and torch says so ("mixed torch.Tensor and DTensor")."""


def wrap(passage: nn.Module) -> nn.Module:
    """What a step must call instead of `passage`: DDP around it, unless it is sharded or a single process."""
    if world_size() == 1 or is_sharded(passage):
        return passage
    alike = [f"{at}.{name}" for at, m in passage.named_modules() for name in own_buffers(m)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(passage, alike)
    return DistributedDataParallel(passage)


def own_buffers(module: nn.Module) -> list[str]:
    """Names of a module's own buffers where it keeps them alike on all ranks by itself (`alike_on_ranks`), so that DDP
    need not send them out before each pass: a queue of vectors is a hundred megabytes."""
    return [n for n, _ in module.named_buffers(recurse=False)] if getattr(module, "alike_on_ranks", False) else []


def shard(objective: Objective) -> None:
    """Split the weights of `objective` over all processes, in place; nothing to do in a single process.

    Every process must hold the same weights. They become other parameters, so the optimizer and any average of weights
    are made afterwards, and what wraps methods or blocks (compilation, activation checkpointing) before.
    """
    if not initialised():
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for p in objective.parameters():
        p.data = p.data.contiguous()
    whole = {p for p in objective.parameters() if p.ndim == 0}
    mesh = init_device_mesh(next(objective.parameters()).device.type, (world_size(),))
    blocks = set(recomputable_blocks(objective))
    units = [m for m in objective.modules() if m in blocks or isinstance(m, UNITS)]
    for module in reversed(units):  # what is inside comes first
        # freed after each forward, the outermost too: outside of a pass every parameter is this process's part
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
        for name in METHODS:
            if callable(getattr(module, name, None)):
                register_fsdp_forward_method(module, name)
    _settle_root(objective)


def silent(passage: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Around the passes of one piece of a batch: DDP sums gradients over processes in the last piece only.

    FSDP sums in every piece: otherwise each process would hold a whole gradient until the last one.
    """
    if isinstance(passage, DistributedDataParallel) and not last:
        return passage.no_sync()
    return nullcontext()


def is_sharded(module: nn.Module) -> bool:
    """Whether a process holds only a part of some weight of `module`."""
    return any(hasattr(p, "to_local") for p in module.parameters())


def average_whole(objective: Objective) -> None:
    """After the last backward of a step: average the gradients that FSDP leaves alone. Nothing to do under DDP."""
    if not is_sharded(objective):
        return
    grads = [p.grad for p in objective.parameters() if p.grad is not None and not hasattr(p, "to_local")]
    if grads:
        mean = all_sum(torch.stack(grads)) / world_size()
        for grad, value in zip(grads, mean.unbind(), strict=True):
            grad.copy_(value)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, as a view; any other tensor as it is."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def whole(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, on every process (a collective); any other tensor as it is."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor`, which every process holds whole, split as `like` is; itself where `like` is not split."""
    if not hasattr(like, "to_local"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    device = like.to_local().device
    return distribute_tensor(tensor.to(device), like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def gathered(model: Model) -> Iterator[Model]:
    """While open, a model that the main process can run and save alone; a collective, entered by all.

    That is `model` itself, or, where it is sharded, a whole copy of it, which only the main process gets: the others
    get `model` back. The copy is in eval mode, its adapters are merged, and it needs as much memory on the main process
    as all weights.
    """
    if not is_sharded(model):
        yield model
        return
    scale = adapter_scale(model)
    copy = build(model.config, model.vocab_size).to(model.pixel_mean.device).eval() if is_main() else None
    state = {} if copy is None else copy.state_dict()
    adapted: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():  # one at a time, in the same order on all
            full = whole(tensor)
            if copy is not None and name in state:
                state[name].copy_(full)
            elif copy is not None:
                adapted[name] = full
    if copy is not None and scale is not None:
        copy.load_state_dict(merged(adapted, scale), strict=False)
    yield model if copy is None else copy


def _settle_root(objective: Objective) -> None:
    """Make `objective` the outermost unit for good: a tower that is called before it would take itself for that."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    objective.enter = lambda: None  # type: ignore[assignment]
    register_fsdp_forward_method(objective, "enter")
    objective.enter()  # type: ignore[operator]
    del objective.enter
