"""The gradient of MaskedData over a batch of 8, by one process, in pieces, and by two gloo processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from diptych.core.batch import Batch
from diptych.core.distributed import rank, shutdown, world_size
from diptych.objectives.masked_data import MaskedDataConfig
from diptych.train.accumulate import Accumulator
from tests.models.small_beit3 import PAPER, small_beit3
from tests.models.writers import stirred, text_batch
from tests.processes import in_processes

WORLD = 2


def whole() -> Batch:
    """Eight pairs, of which, by their keys, three become images, two texts and three stay pairs; the first rank has
    no text by itself."""
    return replace(text_batch((5, 4, 7, 3, 4, 6, 6, 5)), sample_keys=torch.tensor([1, 4, 6, 13, 8, 7, 9, 20]))


def gradient(micro_batch: int = 0) -> dict[str, Any]:
    """Loss, parts and gradients of this rank's share (gradients are averaged over ranks)."""
    objective = MaskedDataConfig().build(stirred(small_beit3(blocks=PAPER))).train()
    share = 8 // world_size()
    batch = whole().slice(rank() * share, (rank() + 1) * share)
    found = Accumulator(objective, micro_batch)(batch)
    grads = {n: p.grad for n, p in objective.model.named_parameters() if p.grad is not None}
    return {"total": found.losses.total, "parts": found.losses.parts, "gradients": grads}


def _work(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=WORLD)
    found = {"whole": gradient(), "pieces": gradient(2)}
    torch.save(found, Path(folder) / f"{number}.pt")
    shutdown()


def compute_together(folder: Path) -> list[dict[str, Any]]:
    """The results of both ranks."""
    in_processes(_work, (str(folder),), WORLD)
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(WORLD)]
