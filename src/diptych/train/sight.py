"""Whether a model that writes looks at its images: its loss with each image exchanged for another record's.

A fluent model may ignore what it is shown, and its loss alone does not tell (LAVIS #463: "output has nothing to do with
the image"). With exchanged images a blind model loses nothing; the difference in nats a token is what sight is worth.
"""

from dataclasses import replace

import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import all_sum
from diptych.objectives.objective import Losses
from diptych.train.accumulate import Accumulator

PIECES = 8
"""Parts of a batch that are compared one by one, so that the spread of the difference is known."""


def mismatched(batch: Batch) -> Batch | None:
    """The batch with each image in the place of the next one; None where there are fewer than two."""
    found = {n: t for n in ("images", "patches", "patch_index") if (t := getattr(batch, n)) is not None}
    cached = dict(batch.cached or {})
    count = len(cached["image"]) if "image" in cached else len(next(iter(found.values()), ()))
    if count < 2:
        return None
    if "image" in cached:
        cached["image"] = cached["image"].roll(1, 0)
    return replace(batch, **{n: t.roll(1, 0) for n, t in found.items()}, cached=cached or None)


class Sight:
    """Compares the loss of validation batches with that of the same texts beside other records' images."""

    def __init__(self, accumulate: Accumulator) -> None:
        self._accumulate = accumulate
        self._exchanged: list[Tensor] = []
        self._differences: list[Tensor] = []

    def loss(self, batch: Batch) -> Tensor:
        """The mean loss of a batch, noting how much larger it is with other images."""
        other = mismatched(batch)
        coupled = self._accumulate.objective.couples_pairs  # its loss is one of the whole batch
        size = batch.size if coupled or other is None else max(1, -(-batch.size // PIECES))
        own, exchanged = [], []
        for i in range(0, batch.size, size):
            own.append(self._accumulate.loss_only(batch.slice(i, min(i + size, batch.size))))
            if other is not None:
                exchanged.append(self._accumulate.loss_only(other.slice(i, min(i + size, batch.size))))
                self._differences.append(_written(exchanged[-1]) - _written(own[-1]))
        if exchanged:
            self._exchanged.append(_mean(exchanged))
        return _mean(own)

    def numbers(self) -> dict[str, float]:
        """ "val_loss_mismatched", "sight" and its standard error, of all ranks together (a collective); empty where
        nothing could be exchanged.

        "sight" is the difference of what is written alone (the part "nll"), where the objective tells it apart.
        """
        if not self._differences:
            return {}
        d, exchanged = torch.stack(self._differences), torch.stack(self._exchanged)
        one = torch.ones_like(d)
        sums = all_sum(
            torch.stack([one.sum(), d.sum(), d.square().sum(), exchanged.sum(), exchanged.new_tensor(len(exchanged))])
        )
        n, total, squares, loss, batches = sums.tolist()
        mean = total / n
        found = {"val_loss_mismatched": loss / batches, "sight": mean}
        if n > 1:
            found["sight_error"] = (max(squares / n - mean**2, 0.0) / (n - 1)) ** 0.5
        return found


def _written(losses: Losses) -> Tensor:
    return losses.parts.get("nll", losses.total).double()


def _mean(found: list[Losses]) -> Tensor:
    counts = torch.stack([x.count.double() for x in found])
    return (torch.stack([x.total.double() for x in found]) * counts).sum() / counts.sum().clamp_min(1)
