"""Three steps of each codec over a batch of 8, by one process, in pieces, and by two gloo processes."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from diptych.core.batch import Batch
from diptych.core.distributed import rank, shutdown, world_size
from diptych.models.codecs.codec import CodecConfig
from diptych.objectives.codec import CodecObjectiveConfig
from diptych.train.accumulate import Accumulator
from tests.models.codecs.small import configs, pictures
from tests.processes import in_processes

WORLD = 2
NAMES = ("vqvae_begins", "vqvae", "discrete_vae", "autoencoder_kl", "vq_kd")


def config_of(name: str) -> CodecConfig:
    """Also one whose codebook begins by k-means and whose idle codes are put elsewhere at each step."""
    if name != "vqvae_begins":
        return configs()[name]
    config = configs()["vqvae_ema"]
    return config.replace(quantizer=config.quantizer.replace(kmeans=True, revive_after=1))


def steps(name: str, micro_batch: int = 0) -> dict[str, Any]:
    """Loss and parts of this rank's share in the last of three steps, the gradients and all that the codec holds."""
    torch.manual_seed(0)
    model = config_of(name).build()
    for n, p in model.named_parameters():
        if n.startswith("teacher"):
            p.requires_grad_(False)
    objective = CodecObjectiveConfig(scales=2).build(model).train()
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    accumulate = Accumulator(objective, micro_batch)
    share = 8 // world_size()
    for step in range(3):
        images, keys = pictures(8 * (step + 1))[8 * step :], torch.arange(8) + 100 * step
        batch = Batch(images=images, image_record=torch.arange(8), sample_keys=keys, sample_ids=keys)
        optimizer.zero_grad()
        found = accumulate(batch.slice(rank() * share, (rank() + 1) * share))
        optimizer.step()
        objective.after_step()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    losses = {"total": found.losses.total, **found.losses.parts}
    return {"losses": losses, "gradients": grads, "state": {n: t.clone() for n, t in model.state_dict().items()}}


def _work(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=WORLD)
    torch.save({n: steps(n) for n in NAMES}, Path(folder) / f"{number}.pt")
    shutdown()


def compute_together(folder: Path) -> list[dict[str, Any]]:
    """The results of both ranks."""
    in_processes(_work, (str(folder),), WORLD)
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(WORLD)]
