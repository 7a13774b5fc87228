"""What one of several gloo processes does in the tests that compare them with a single one."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import shutdown
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.objective import Losses, Objective
from diptych.objectives.sigmoid import SigmoidConfig
from diptych.train.accumulate import Accumulator
from diptych.train.config import RunConfig
from diptych.train.loop import train
from diptych.train.sharding import shard, whole
from tests.objectives.tiny_model import TinyConfig, tiny_batch
from tests.processes import in_processes
from tests.train.locked import student
from tests.train.tiny_run import tiny_config

IDS = {"text_ids": [7, 1, 7, 3, 4, 1, 8, 9, 10, 11, 7, 12], "image_ids": [0, 1, 2, 3, 3, 5, 6, 7, 8, 9, 10, 10]}


class Tokenwise(Objective):
    """Uncoupled, with as many terms as there are real tokens: ranks have unequal counts."""

    def forward(self, batch: Batch) -> Losses:
        real = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
        image = self.model.encode_image(batch.images).sum() * self.model.log_logit_scale  # every parameter takes part
        text = self.model.encode_text(batch.tokens, batch.lengths).sum(1, keepdim=True).expand(real.shape)[real]
        return Losses((text + 0 * image).mean(), real.sum(), {})


def objectives() -> dict[str, Objective]:
    """One of each kind, with the same weights wherever it is called."""
    found = {}
    for name, config, bias in (
        ("mask", ContrastiveConfig(label_smoothing=0.1), False),
        ("positives", ContrastiveConfig(duplicates="positives"), False),
        ("sigmoid", SigmoidConfig(), True),
    ):
        torch.manual_seed(0)
        found[name] = config.build(TinyConfig(bias=bias).build(20))
    torch.manual_seed(0)
    found["tokenwise"] = Tokenwise(TinyConfig().build(20))
    return found


def gradients(micro_batch: int, rank: int = 0, world: int = 1, sharded: bool = False) -> dict[str, Tensor]:
    """The loss and all gradients of each objective for this rank's share of a fixed batch of 12."""
    batch = tiny_batch(12, **IDS)
    share = 12 // world
    found = {}
    for name, objective in objectives().items():
        if sharded:
            shard(objective)
        accumulate = Accumulator(objective, micro_batch)
        for _ in range(2):  # twice, since DDP's first step is unlike the others
            objective.zero_grad()
            losses = accumulate(batch.slice(rank * share, (rank + 1) * share)).losses
        total = losses.total.clone()
        if world > 1:
            dist.all_reduce(total)
        found[f"{name}/loss"] = total / world
        found |= {f"{name}/{n}": whole(p.grad).clone() for n, p in objective.named_parameters()}
        health = objective.health({}, batch) if name == "tokenwise" else None
        assert not health
    return found


def _all(rank: int, world: int, folder: str) -> None:
    _join(rank, world, folder)
    for micro_batch in (0, 4):
        torch.save(gradients(micro_batch, rank, world), Path(folder) / f"{micro_batch}-{rank}.pt")
    objective = objectives()["mask"]
    share = tiny_batch(12, **IDS).slice(rank * 6, rank * 6 + 6)
    torch.save(objective.health(objective.encode(share), share), Path(folder) / f"health-{rank}.pt")
    _train(folder, False, {})
    batch_norm = steady_config(Path(folder) / "data")
    batch_norm = batch_norm.replace(model=batch_norm.model.replace(batch_norm=True))
    train(batch_norm, Path(folder) / "batch_norm", device=torch.device("cpu"))
    train(
        student(Path(folder) / "data", Path(folder) / "teacher"), Path(folder) / "student", device=torch.device("cpu")
    )
    shutdown()


def _train_only(rank: int, world: int, folder: str, resume: bool, settings: dict) -> None:
    _join(rank, world, folder)
    _train(folder, resume, settings)
    shutdown()


def _train(folder: str, resume: bool, settings: dict) -> None:
    config = steady_config(Path(folder) / "data", **settings)
    train(config, Path(folder) / "run", resume=resume, device=torch.device("cpu"))


def steady_config(data: Path, **settings: object) -> RunConfig:
    """The tiny run without dropout, whose draws would differ with the number of ranks."""
    config = tiny_config(data, **settings)
    return config.replace(model=config.model.replace(dropout=0.0))


def _join(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    # a file and not a port: nothing to collide with
    meeting = f"file://{folder}/meeting-{world}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)


def compute_together(folder: Path, world: int = 2) -> None:
    """Write each rank's gradients and health into FOLDER, and train the tiny run over FOLDER/data in FOLDER/run."""
    in_processes(_all, (world, str(folder)), world)


def train_together(folder: Path, world: int = 2, resume: bool = False, **settings: object) -> None:
    """Train the tiny run over FOLDER/data in FOLDER/run on several processes."""
    in_processes(_train_only, (world, str(folder), resume, settings), world)
