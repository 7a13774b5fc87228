"""What one of three gloo processes finds for its share of a batch of 12, to be compared with a single process."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import normalize

from diptych.core.distributed import shutdown
from diptych.objectives import exchange, tiles
from diptych.objectives.contrastive import ContrastiveConfig, PairObjective
from diptych.objectives.sigmoid import SigmoidConfig
from tests.objectives.tiny_model import TinyConfig, tiny_batch
from tests.processes import in_processes

WORLD = 3
IDS = {"text_ids": [7, 1, 7, 3, 4, 1, 8, 9, 10, 11, 7, 12], "image_ids": [0, 1, 2, 3, 3, 5, 6, 7, 8, 9, 10, 10]}
SMALL = tiles.TileSize(3, 5, 20)


def objectives(how: str) -> dict[str, PairObjective]:
    """Every way to treat duplicates, with both losses."""
    found: dict[str, Any] = {}
    for d in ("mask", "positives", "ignore"):
        found[f"softmax/{d}"] = ContrastiveConfig(duplicates=d, label_smoothing=0.1, exchange=how)
        found[f"sigmoid/{d}"] = SigmoidConfig(duplicates=d, exchange=how)
    return {k: c.build(TinyConfig(bias=True).build(20)) for k, c in found.items()}


def results(how: str, frozen: str = "", rank: int = 0, world: int = 1) -> dict[str, Any]:
    """Losses, gradients and health of a rank's share, by objective."""
    g = torch.Generator().manual_seed(3)
    share = 12 // world
    part = slice(rank * share, (rank + 1) * share)
    batch = tiny_batch(12, **IDS).slice(part.start, part.stop)
    vectors = normalize(torch.randn(2, 12, 5, generator=g), dim=-1)
    found: dict[str, Any] = {}
    for name, objective in objectives(how).items():
        leaves = {k: v[part].clone() for k, v in zip(("image", "text"), vectors, strict=True)}
        for k, v in leaves.items():
            v.requires_grad_(k != frozen)
        losses = objective.loss(leaves, batch)
        losses.total.backward()
        numbers = {k: v.grad for k, v in objective.model.named_parameters() if v.grad is not None}
        found[name] = {
            "total": losses.total.detach(),
            "parts": losses.parts,
            "vectors": {k: v.grad for k, v in leaves.items() if v.grad is not None},
            "numbers": numbers,
            "health": objective.health(leaves, batch),
        }
    return found


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    found: dict[str, Any] = {"gather": results("gather", "", rank, WORLD), "ring": results("ring", "", rank, WORLD)}
    found["ring, image frozen"] = results("ring", "image", rank, WORLD)
    tiles.tile_size = lambda device: SMALL
    from diptych.objectives import contrastive

    contrastive.tile_size = tiles.tile_size  # type: ignore[attr-defined]
    exchange.RING_BYTES = 1
    found["by size, small tiles"] = results("auto", "", rank, WORLD)
    found["columns"] = {how: _columns(rank, how) for how in ("gather", "ring")}
    torch.save(found, Path(folder) / f"{rank}.pt")
    shutdown()


def _columns(rank: int, how: str) -> dict[str, Any]:
    """What an exchange hands out and brings home: rank r adds (r + 1) (number of the block's first column + 1)."""
    own = torch.full((2, 3), float(rank))
    moving = exchange.exchange(own, how)
    seen: list[tuple[int, Tensor]] = [(first, block.clone()) for first, block in moving.blocks()]
    for first, block, gradient in moving.blocks_with_gradient():
        gradient += (rank + 1) * (torch.arange(len(block))[:, None] + first + 1)
    return {"seen": seen, "gradient": moving.gradient}


def compute_together(folder: Path) -> list[dict[str, Any]]:
    """The results of all ranks."""
    in_processes(_work, (str(folder),), WORLD)
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(WORLD)]
