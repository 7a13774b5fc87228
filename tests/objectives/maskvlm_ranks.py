"""The gradient of MaskVLM's objective over a batch of 8, by one process, in pieces, and by two gloo processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from diptych.core.batch import Batch
from diptych.core.distributed import rank, shutdown, world_size
from diptych.core.errors import ConfigError
from diptych.objectives.maskvlm import MutualMaskingConfig
from diptych.train.accumulate import Accumulator
from diptych.train.sharding import shard
from diptych.train.sharding import whole as full
from tests.models.small_maskvlm import small_conv_maskvlm, small_maskvlm
from tests.models.writers import stirred, text_batch
from tests.processes import in_processes

WORLD = 2
MODELS = {"vit": small_maskvlm, "conv": small_conv_maskvlm, "untied": lambda: small_maskvlm(tied=False)}


def whole() -> Batch:
    """Eight pairs, of which two share a caption and two an image."""
    ids = {"text_ids": torch.tensor([0, 1, 2, 3, 0, 5, 6, 7]), "image_ids": torch.tensor([0, 1, 2, 3, 4, 5, 1, 7])}
    return replace(text_batch((5, 3, 7, 9, 4, 6, 2, 5)), **ids)


def gradient(kind: str = "vit", micro_batch: int = 0, kept: int = 1, sharded: bool = False) -> dict[str, Any]:
    """Loss, parts and gradients of this rank's share (gradients are averaged over ranks)."""
    objective = MutualMaskingConfig(label_smoothing=0.1).build(stirred(MODELS[kind]())).train()
    if sharded:
        shard(objective)
    share = 8 // world_size()
    batch = whole().slice(rank() * share, (rank() + 1) * share)
    found = Accumulator(objective, micro_batch, kept=kept)(batch)
    grads = {n: full(p.grad) for n, p in objective.model.named_parameters() if p.grad is not None}
    return {"total": found.losses.total, "parts": found.losses.parts, "gradients": grads}


def _work(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=WORLD)
    found = {"vit": gradient(), "vit pieces": gradient("vit", 2), "conv": gradient("conv")}
    found |= {n: gradient("untied", m, sharded=True) for n, m in (("untied sharded", 0), ("untied sharded pieces", 2))}
    try:
        gradient(sharded=True)
    except ConfigError as error:
        found["refused"] = str(error)
    torch.save(found, Path(folder) / f"{number}.pt")
    shutdown()


def compute_together(folder: Path) -> list[dict[str, Any]]:
    """The results of both ranks."""
    in_processes(_work, (str(folder),), WORLD)
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(WORLD)]
