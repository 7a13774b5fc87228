"""What one of two gloo processes finds for its share of a batch of CoCa, to be compared with a single process."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import shutdown
from diptych.objectives.coca import ContrastiveCaptioning, ContrastiveCaptioningConfig
from diptych.train.accumulate import Accumulator
from tests.models.test_coca import small_coca
from tests.models.writers import stirred, text_batch
from tests.processes import in_processes

LENGTHS = (5, 2, 7, 3, 9, 4, 3, 6)


def objective() -> ContrastiveCaptioning:
    config = ContrastiveCaptioningConfig(label_smoothing=0.1, caption_smoothing=0.1)
    return config.build(stirred(small_coca()).train())


def whole_batch() -> Batch:
    """Texts of unequal lengths, so that ranks and pieces have unequal numbers of tokens; two of them are equal."""
    batch = text_batch(LENGTHS)
    batch.text_ids[3] = batch.text_ids[1]
    return batch


def gradients(micro_batch: int, kept: int = 1, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """The loss, its parts and all gradients for this rank's share."""
    share = len(LENGTHS) // world
    one = objective()
    accumulate = Accumulator(one, micro_batch, kept=kept)
    for _ in range(2):  # twice, since DDP's first step is unlike the others
        one.zero_grad()
        losses = accumulate(whole_batch().slice(rank * share, (rank + 1) * share)).losses
    numbers = torch.stack([losses.total, losses.parts["nll"], losses.parts["token_accuracy"], losses.parts["i2t"]])
    if world > 1:
        dist.all_reduce(numbers)
    found = {n: p.grad.clone() for n, p in one.named_parameters() if p.grad is not None}
    return {"losses": numbers / world} | found


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for micro_batch in (0, 2):
        torch.save(gradients(micro_batch, 1, rank, 2), Path(folder) / f"{micro_batch}-{rank}.pt")
    shutdown()


def compute_together(folder: Path) -> dict[tuple[int, int], dict[str, Tensor]]:
    """By (micro_batch, rank)."""
    in_processes(_work, (str(folder),), 2)
    return {(m, r): torch.load(folder / f"{m}-{r}.pt") for m in (0, 2) for r in (0, 1)}
