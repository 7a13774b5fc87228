"""Batch norms where a batch is taken in pieces or by several processes: noted once, put back, shared, and explained."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diptych.core.distributed import broadcast_, world_size
from diptych.nn.experts import Experts
from diptych.nn.quantizer import CodeUse, VectorQuantizer


class BatchNormAtRest:
    """While it is open, batch norms use the batch's statistics but do not note them: another pass does, once."""

    def __init__(self, module: nn.Module) -> None:
        self.norms = [m for m in batch_norms(module) if m.training and m.track_running_stats]

    def __enter__(self) -> None:
        for m in self.norms:
            m.track_running_stats = False

    def __exit__(self, *_: object) -> None:
        for m in self.norms:
            m.track_running_stats = True


class RunningStatistics:
    """What batch norms have noted so far, put back when a step turns out not finite: a NaN would stay for ever. What
    codebooks and routers have noted of a step (`nn/quantizer.py`, `nn/experts.py`) is forgotten with it."""

    def __init__(self, module: nn.Module) -> None:
        self._codebooks = [m for m in module.modules() if isinstance(m, (CodeUse, VectorQuantizer, Experts))]
        self._now = [b for m in batch_norms(module) for b in m.buffers()]
        self._kept = [b.clone() for b in self._now]

    def note(self) -> None:
        """Remember them as they are now."""
        for kept, now in zip(self._kept, self._now, strict=True):
            kept.copy_(now)

    def restore(self, skipped: Tensor | None = None) -> None:
        """Put back what was remembered, if `skipped` is 1 or not given; only a CPU's host reads it."""
        if skipped is not None and skipped.device.type == "cpu" and not skipped:
            return
        if skipped is None or skipped.device.type == "cpu":
            for codebook in self._codebooks:
                codebook.forget_noted()
        for kept, now in zip(self._kept, self._now, strict=True):
            now.copy_(kept if skipped is None else torch.where(skipped > 0, kept, now))


def share_running_statistics(module: nn.Module) -> None:
    """Give all ranks those of the main one, which are the ones that are saved.

    DDP does the same at the next training step; in between each rank has its own, which see only its own shares.
    """
    broadcast_([b for m in batch_norms(module) for b in m.buffers()])


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """The layers of `module` whose output for one pair depends on the other pairs of a piece."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def batch_norm_notice(module: nn.Module, micro_batch: int, local_batch: int) -> str | None:
    """What the user must know where batch norm meets pieces or ranks; None where nothing changes."""
    norms, piece = [m for m in batch_norms(module) if m.training], min(micro_batch or local_batch, local_batch)
    if not norms or (piece == local_batch and world_size() == 1):
        return None
    return (
        f"{len(norms)} batch norm layers take their statistics over {piece:,} pairs (a piece of one process), not over "
        "the global batch: the gradient is exact for that, but not that of the batch in one piece. Running statistics "
        "move once a piece and are the main process's. Choose a tower with layer norm, or pieces of at least 64 pairs."
    )
