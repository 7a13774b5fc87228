"""What one of two gloo processes finds for its share of a batch of DALL-E or Chameleon, to be compared with one."""

import importlib
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import shutdown
from diptych.objectives.objective import Objective
from diptych.train.accumulate import Accumulator
from tests.models.writers import text_batch
from tests.objectives.test_contract import config_of
from tests.processes import in_processes

LENGTHS = (5, 2, 7, 3, 9, 4, 3, 6)


def objective(name: str) -> Objective:
    """With a good share of what is drawn by key."""
    config = config_of(name)
    config = config.replace(text_dropped=0.4) if name == "dalle" else config
    return config.build(importlib.import_module(f"tests.objectives.test_{name}").contract_model()).train()


def whole_batch() -> Batch:
    """Texts of unequal lengths, so that ranks and pieces have unequal numbers of tokens."""
    return text_batch(LENGTHS)


def gradients(name: str, micro_batch: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """The loss and all gradients for this rank's share."""
    share = len(LENGTHS) // world
    one = objective(name)
    accumulate = Accumulator(one, micro_batch)
    for _ in range(2):  # twice, since DDP's first step is unlike the others
        one.zero_grad()
        losses = accumulate(whole_batch().slice(rank * share, (rank + 1) * share)).losses
    total = losses.total.clone()
    if world > 1:
        dist.all_reduce(total)
    found = {n: p.grad.clone() for n, p in one.named_parameters() if p.grad is not None}
    return {"loss": total / world} | found


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal up to sums in another order."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-6, rtol=2e-4, msg=lambda m, name=name: f"{name}: {m}")


def _work(rank: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for micro_batch in (0, 2):
        torch.save(gradients(name, micro_batch, rank, 2), Path(folder) / f"{micro_batch}-{rank}.pt")
    shutdown()


def compute_together(name: str, folder: Path) -> dict[tuple[int, int], dict[str, Tensor]]:
    """By (micro_batch, rank)."""
    in_processes(_work, (name, str(folder)), 2)
    return {(m, r): torch.load(folder / f"{m}-{r}.pt") for m in (0, 2) for r in (0, 1)}
