"""What one of two gloo processes finds for its share of a batch of denoising, to be compared with a single process."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import shutdown
from diptych.objectives.diffusion import Diffusion, DiffusionConfig
from diptych.train.accumulate import Accumulator
from tests.models.small_diffusion import small_codec, small_diffusion
from tests.models.writers import stirred, text_batch
from tests.processes import in_processes

LENGTHS = (5, 2, 7, 3, 9, 4, 3, 6)


def objective() -> Diffusion:
    """Around a model whose latents' spread is not known yet."""
    return DiffusionConfig().build(stirred(small_diffusion(codec=small_codec(), condition_dropout=0.3))).train()


def whole_batch() -> Batch:
    return text_batch(LENGTHS)


def gradients(micro_batch: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """The loss, all gradients and the factor on latents, at the third step."""
    share = len(LENGTHS) // world
    one = objective()
    accumulate = Accumulator(one, micro_batch)
    for _ in range(3):
        one.zero_grad()
        losses = accumulate(whole_batch().slice(rank * share, (rank + 1) * share)).losses
        one.after_step()
    numbers = torch.stack([losses.total, losses.parts["mse"]])
    if world > 1:
        dist.all_reduce(numbers)
    found = {n: p.grad.clone() for n, p in one.named_parameters() if p.grad is not None}
    return {"losses": numbers / world, "scale": one.model.latent_scale.clone()} | found


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(gradients(2, rank, 2), Path(folder) / f"{rank}.pt")
    shutdown()


def compute_together(folder: Path) -> list[dict[str, Tensor]]:
    """The results of both ranks."""
    in_processes(_work, (str(folder),), 2)
    return [torch.load(folder / f"{r}.pt") for r in (0, 1)]
