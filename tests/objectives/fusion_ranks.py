"""The gradient of the objectives of ALBEF and BLIP over a batch of 8: by one process, in pieces, by two processes.

Before it, a teacher that is not the model, and a queue that holds some of another batch.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from diptych.core.distributed import rank, shutdown, world_size
from diptych.objectives.albef import AlbefPretrainingConfig
from diptych.objectives.blip import BlipPretrainingConfig
from diptych.objectives.momentum import MomentumObjective
from diptych.train.accumulate import Accumulator
from diptych.train.sharding import shard
from diptych.train.sharding import whole as full
from tests.models.small_fusion import small_albef, small_blip
from tests.models.towers import stir
from tests.models.writers import stirred
from tests.objectives.query_ranks import whole
from tests.processes import in_processes

WORLD = 2
KINDS: dict[str, tuple[Any, Any]] = {
    "blip": (small_blip(), BlipPretrainingConfig(queue=7)),
    "albef": (small_albef(), AlbefPretrainingConfig(queue=7)),
    "bare": (small_blip(), BlipPretrainingConfig(queue=0, momentum=0.0, label_smoothing=0.1)),
}


def objective_of(kind: str, **changes: Any) -> MomentumObjective:
    """Stirred, in training mode."""
    model, config = KINDS[kind]
    objective = config.replace(**changes).build(stirred(model)).train()
    g = torch.Generator().manual_seed(5)
    if objective.average is not None:
        torch.manual_seed(6)
        stir(objective.average.model)
    if objective.queue is not None:
        unit = [torch.nn.functional.normalize(torch.randn(3, 8, generator=g), dim=1) for _ in range(2)]
        ids = {"image_ids": torch.tensor([1, 70, 71]), "text_ids": torch.tensor([80, 3, 81])}
        objective.queue.put({"image": unit[0], "text": unit[1], **ids})
    return objective


def gradient(kind: str, micro_batch: int = 0, kept: int = 1, sharded: bool = False) -> dict[str, Any]:
    """Loss, parts, gradients (averaged over ranks) of this rank's share, and the queue after the step."""
    objective = objective_of(kind)
    if sharded:
        shard(objective)
    share = 8 // world_size()
    batch = whole().slice(rank() * share, (rank() + 1) * share)
    found = Accumulator(objective, micro_batch, kept=kept)(batch)
    grads = {n: full(p.grad) for n, p in objective.model.named_parameters() if p.grad is not None}
    objective.after_step()
    state = {n: full(t).clone() for n, t in objective.state_dict().items() if not n.startswith("model.")}
    return {"total": found.losses.total, "parts": found.losses.parts, "gradients": grads, "state": state}


def _work(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=WORLD)
    found = {kind: {"whole": gradient(kind), "pieces": gradient(kind, 2)} for kind in KINDS}
    for kind in KINDS:
        found[kind]["sharded"] = gradient(kind, sharded=True)
    torch.save(found, Path(folder) / f"{number}.pt")
    shutdown()


def compute_together(folder: Path) -> list[dict[str, Any]]:
    """The results of both ranks."""
    in_processes(_work, (str(folder),), WORLD)
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(WORLD)]
