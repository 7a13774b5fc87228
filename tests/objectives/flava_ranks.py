"""The gradient of FlavaObjective over a batch of 12, by one process, in pieces, and by two gloo processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from diptych.core.batch import Batch
from diptych.core.distributed import rank, shutdown, world_size
from diptych.objectives.flava import FlavaObjective, FlavaObjectiveConfig
from diptych.train.accumulate import Accumulator
from diptych.train.sharding import shard
from diptych.train.sharding import whole as full
from tests.models.small_flava import stirred_flava
from tests.models.writers import text_batch
from tests.processes import in_processes

WORLD, SIZE = 2, 12


def objective(**changes: Any) -> FlavaObjective:
    """With every kind of record often enough for a batch of 12."""
    chances = {"image_alone": 0.2, "text_alone": 0.2, "mismatched": 0.4}
    return FlavaObjectiveConfig(**chances | changes).build(stirred_flava()).train()


def whole() -> Batch:
    """Twelve pairs, of which two share a caption and two an image."""
    batch = text_batch((5, 3, 7, 3, 4, 6, 4, 5, 9, 3, 8, 4))
    text, image = torch.arange(SIZE), torch.arange(SIZE)
    text[4], image[6] = text[0], image[1]
    return replace(batch, text_ids=text, image_ids=image)


def gradient(micro_batch: int = 0, kept: int = 1, sharded: bool = False) -> dict[str, Any]:
    """Loss, parts and gradients of this rank's share (gradients are averaged over ranks)."""
    one = objective()
    if sharded:
        shard(one)
    share = SIZE // world_size()
    batch = whole().slice(rank() * share, (rank() + 1) * share)
    accumulate = Accumulator(one, micro_batch, kept=kept)
    for _ in range(2):  # twice, since DDP's first step is unlike the others
        one.zero_grad()
        found = accumulate(batch)
    grads = {n: full(p.grad) for n, p in one.model.named_parameters() if p.grad is not None}
    return {"total": found.losses.total, "parts": found.losses.parts, "gradients": grads}


def _work(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=WORLD)
    found = {"whole": gradient(), "pieces": gradient(2)}
    found |= {"sharded": gradient(sharded=True), "sharded pieces": gradient(2, sharded=True)}
    torch.save(found, Path(folder) / f"{number}.pt")
    shutdown()


def compute_together(folder: Path) -> list[dict[str, Any]]:
    """The results of both ranks."""
    in_processes(_work, (str(folder),), WORLD)
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(WORLD)]
