"""Three steps of blocks with experts over a batch of 8, by one process or two, each an even share of the records."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from diptych.core.distributed import rank, shutdown, world_size
from diptych.nn.block import BlockConfig, build_blocks, through_blocks
from diptych.nn.experts import balance_experts
from tests.models.towers import stir
from tests.processes import in_processes

WORLD = 2


class Tower(torch.nn.Module):
    """Two blocks of four experts, two a token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = build_blocks(BlockConfig(width=16, depth=2, heads=2, experts=4, experts_per_token=2))
        stir(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return through_blocks(self.blocks, x, None)


def steps() -> dict[str, Any]:
    """All that the tower holds after three steps, and the last gradients; the loss is a mean over records."""
    tower = Tower().train()
    module = DistributedDataParallel(tower) if world_size() > 1 else tower
    optimizer = torch.optim.SGD(tower.parameters(), lr=0.1)
    share = 8 // world_size()
    for step in range(3):
        x = torch.randn(8, 5, 16, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        module(x[rank() * share : (rank() + 1) * share]).square().flatten(1).mean(1).mean().backward()
        optimizer.step()
        balance_experts(tower)
    gradients = {n: p.grad.clone() for n, p in tower.named_parameters() if p.grad is not None}
    return {"state": {n: t.clone() for n, t in tower.state_dict().items()}, "gradients": gradients}


def _work(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=WORLD)
    torch.save(steps(), Path(folder) / f"{number}.pt")
    shutdown()


def compute_together(folder: Path) -> list[dict[str, Any]]:
    """The results of both ranks."""
    in_processes(_work, (str(folder),), WORLD)
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(WORLD)]
