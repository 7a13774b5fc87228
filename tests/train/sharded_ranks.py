"""What each of several gloo processes does with weights that are split between them, for the tests to compare."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import shutdown
from diptych.core.image_format import ImageFormat
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.checkpointing import set_checkpointing
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.objective import Objective
from diptych.train import loop
from diptych.train.accumulate import Accumulator
from diptych.train.config import RunConfig
from diptych.train.loop import train
from diptych.train.optimizer import Rates, build_optimizer, clip_gradients, gradient_norm, gradient_norms
from diptych.train.sharding import shard, whole
from tests.objectives.tiny_model import TinyConfig, tiny_batch
from tests.processes import in_processes
from tests.train import ranks

CUT = 6
"""The step at which a run of 8 is cut; its newest checkpoint is of step 3 (48 samples) or 6."""

STEPS = 2


def run_config(folder: Path, sharding: str) -> RunConfig:
    """The tiny run in pieces, with an average and without dropout (other ranks, other draws)."""
    return ranks.steady_config(
        folder / "data", sharding=sharding, micro_batch=4, ema_decay=0.9, save_every_samples=48, grad_clip=0.1
    )


def transformers() -> Objective:
    """A contrastive objective around two small transformers; 5 wide where 2 and 3 processes do not divide it."""
    torch.manual_seed(0)
    config = TwoTowerConfig(
        image_format=ImageFormat(resolution=8),
        context_length=8,
        embed_dim=5,
        image=VisionTransformerConfig(patch_size=4, width=8, depth=2, heads=2, layer_scale=0.1, drop_path=0.2),
        text=TextTransformerConfig(width=8, depth=2, heads=2),
    )
    return ContrastiveConfig().build(config.build(20)).train()


def normed() -> Objective:
    """A contrastive objective around a model with batch norm."""
    torch.manual_seed(0)
    return ContrastiveConfig().build(TinyConfig(batch_norm=True).build(20)).train()


def steps(
    objective: Objective, batch: Batch, micro_batch: int, precision: str = "float32", rates: Rates = ()
) -> dict[str, Tensor]:
    """The weights after a few steps of the loop's own parts, and the norms of their gradients."""
    accumulate = Accumulator(objective, micro_batch, precision)
    optimizer = build_optimizer(objective, 1e-2, 0.2, (0.9, 0.98), 1e-6, rates=rates)
    found = {}
    for step in range(STEPS):
        torch.manual_seed(step)
        accumulate(batch)
        norm = gradient_norm(objective)
        found[f"norm/{step}"] = norm
        clip_gradients(objective, 0.5, norm)
        optimizer.step()
        objective.model.after_step()
        optimizer.zero_grad()
    held = [*objective.named_parameters(), *objective.named_buffers()]
    return found | {n: whole(t).detach().clone() for n, t in held}


def _compare(rank: int, world: int, folder: Path) -> None:
    """Weights after steps of whole and of sharded weights: plain; in pieces, with recomputation and in bfloat16."""
    share = 12 // world
    batch = tiny_batch(12, **ranks.IDS).slice(rank * share, (rank + 1) * share)
    for name, sharded in (("whole", False), ("sharded", True)):
        for precision, micro_batch in (("float32", 0), ("bfloat16", 2)):
            objective = transformers()
            set_checkpointing(objective, micro_batch > 0)
            if sharded:
                shard(objective)
            torch.save(steps(objective, batch, micro_batch, precision), folder / f"{name}-{precision}-{rank}.pt")
        objective = normed()
        if sharded:
            shard(objective)
        torch.save(steps(objective, batch, 3), folder / f"{name}-normed-{rank}.pt")


def _facts(rank: int, folder: Path) -> None:
    """What only the processes themselves can see."""
    objective = transformers()
    shard(objective)
    model, batch = objective.model, tiny_batch(4)
    facts = {"direct": model.image_tower.tokens(model.normalise(batch.images)).shape[-1]}
    del model.text_tower.tokens  # what it would be if it had been forgotten
    try:
        model.text_tower.tokens(batch.tokens, batch.lengths)
        facts["forgotten"] = "works"
    except RuntimeError as error:
        facts["forgotten"] = str(error)
    objective(batch).total.backward()
    facts["held"] = sum(p.to_local().numel() for p in objective.parameters() if p.ndim)
    if rank == 1:
        model.image_tower.blocks[1].mlp.fc_1.weight.grad.to_local()[0, 0] = float("nan")
    names, norms = gradient_norms(objective)
    facts["nonfinite"] = [n for n, x in zip(names, norms.tolist(), strict=True) if not math.isfinite(x)]
    facts["norm"] = str(float(gradient_norm(objective)))
    (folder / f"facts-{rank}.json").write_text(json.dumps(facts))


def _cut(config: RunConfig, run: Path) -> None:
    """Train until step `CUT`, and fail there."""
    real, count = loop._apply, iter(range(1, 100))
    loop._apply = lambda *a: 1 / 0 if next(count) == CUT else real(*a)
    try:
        train(config, run, device=torch.device("cpu"))
    except ZeroDivisionError:
        pass
    finally:
        loop._apply = real


def _all(rank: int, world: int, folder: str) -> None:
    ranks._join(rank, world, folder)
    here, cpu = Path(folder), torch.device("cpu")
    for micro_batch in (0, 4):
        torch.save(ranks.gradients(micro_batch, rank, world, sharded=True), here / f"{micro_batch}-{rank}.pt")
    _compare(rank, world, here)
    _facts(rank, here)
    train(run_config(here, "fsdp"), here / "run", device=cpu)
    _cut(run_config(here, "fsdp"), here / "cut")
    train(run_config(here, "fsdp"), here / "cut", resume=True, device=cpu)
    shutdown()


def _leg(rank: int, world: int, folder: str, sharding: str, last: bool) -> None:
    ranks._join(rank, world, folder)
    config = leg_config(Path(folder), sharding)
    if last:
        train(config, Path(folder) / "run", resume=True, device=torch.device("cpu"))
    else:
        _cut(config, Path(folder) / "run")
    shutdown()


def leg_config(folder: Path, sharding: str) -> RunConfig:
    """A run of 8 steps whose batch 1, 2 and 3 processes divide."""
    config = run_config(folder, sharding)
    return config.replace(train=config.train.replace(global_batch=18, samples_seen=144))


def shard_together(folder: Path, world: int = 2) -> None:
    """Do everything above over FOLDER/data, and leave it in FOLDER."""
    in_processes(_all, (world, str(folder)), world)


def run_leg(folder: Path, sharding: str, world: int, last: bool) -> None:
    """Train FOLDER/run over FOLDER/data on so many processes: from the beginning until it is cut, or on to its end."""
    (folder / f"meeting-{world}").unlink(missing_ok=True)
    in_processes(_leg, (world, str(folder), sharding, last), world)
