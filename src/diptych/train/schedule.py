"""How fast, when, and at what size: the learning rate and the resolution as pure functions of the samples seen."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from diptych.core.errors import ConfigError
from diptych.train.config import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """The learning rate of a run. All lengths are in samples."""

    samples_total: int
    global_batch: int
    peak_lr: float
    warmup_samples: int
    shape: Literal["cosine", "constant"] = "cosine"
    cooldown_samples: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps: the budget in whole batches, rounded up."""
        return math.ceil(self.samples_total / self.global_batch)

    def learning_rate(self, step: int) -> float:
        """The rate of a step: linear warm-up that ends at the peak, then the shape.

        The first step has 1/w of the peak, w being the steps of warm-up (as open_clip counts); "cosine" would reach 0
        one step after the last; "constant" falls linearly over `cooldown_samples` in the same way.
        """
        g = self.global_batch
        end, seen = self.steps * g, step * g
        if seen < self.warmup_samples:
            return self.peak_lr * min(1.0, (seen + g) / self.warmup_samples)
        if self.shape == "cosine":
            share = (seen - self.warmup_samples) / max(end - self.warmup_samples, 1)
            return self.peak_lr * 0.5 * (1 + math.cos(math.pi * share))
        if self.cooldown_samples and seen > end - self.cooldown_samples:
            return self.peak_lr * (end - seen) / self.cooldown_samples
        return self.peak_lr


def choose_lr(global_batch: int, parameters: int) -> tuple[float, str]:
    """A peak rate for AdamW and the reason for it, where none was given.

    1e-3 x (5e7 / parameters)^(1/4) x sqrt(batch / 1024), the last factor held in [1/2, 1], the whole in [1e-4, 2e-3].
    It meets what is known to work: 5e-4 to 1e-3 for a ViT-B at batches of 1 k to 90 k (CLIP, DataComp, MobileCLIP),
    less for larger models, and 1e-3 to 2e-3 for models of a few million parameters.
    """
    size = (5e7 / max(parameters, 1)) ** 0.25
    batch = min(1.0, max(0.5, math.sqrt(global_batch / 1024)))
    lr = min(2e-3, max(1e-4, 1e-3 * size * batch))
    lr = float(f"{lr:.1e}")
    return lr, f"chosen for {parameters / 1e6:.1f} M parameters and a batch of {global_batch:,}; set train.lr to differ"


def choose_warmup(samples_total: int, global_batch: int) -> tuple[int, str]:
    """A length of warm-up in samples and the reason for it: 5 % of the budget, 20 to 2000 steps, at most a fifth."""
    steps = math.ceil(samples_total / global_batch)
    warmup = min(max(round(0.05 * steps), 20), 2000, max(1, steps // 5))
    return warmup * global_batch, f"{warmup / steps:.0%} of the budget; set train.warmup_samples to differ"


def choose_batch(records: int, processes: int = 1) -> tuple[int, str]:
    """A global batch and the reason for it: the largest power of two that leaves 20 steps an epoch, 32 to 4096.

    Fewer steps learn less from the same pairs, and a batch near the size of the data repeats its pairs as negatives.
    """
    batch = 2 ** int(math.log2(min(4096, max(32, records / 20))))
    batch = math.ceil(batch / processes) * processes
    return batch, f"batch {batch:,}, chosen for {records:,} records; set train.global_batch to differ"


def choose_weight_decay(records: int, samples_total: int) -> tuple[float, str]:
    """A decay for AdamW and the reason for it: 0.2 (CLIP's) up to 10 epochs, then 0.02 an epoch, 1.0 at most.

    What is shown often is learnt by heart; decay is what then carries over (LOG.md: at 66 epochs 1.0 beat 0.2).
    """
    epochs = samples_total / max(records, 1)
    decay = round(min(1.0, max(0.2, 0.02 * epochs)), 2)
    return decay, f"decay {decay}, chosen for {epochs:,.0f} epochs; set train.weight_decay to differ"


def settle(train: TrainConfig, records: int, processes: int = 1) -> tuple[TrainConfig, str]:
    """The settings with batch and decay chosen where they were left open, and the reasons ("": nothing was open)."""
    reasons = []
    if not train.global_batch:
        batch, why = choose_batch(records, processes)
        train = train.replace(global_batch=batch)
        reasons.append(why)
    if train.weight_decay is None:
        decay, why = choose_weight_decay(records, train.samples_seen)
        train = train.replace(weight_decay=decay)
        reasons.append(why)
    return train, "; ".join(reasons)


def resolution_at(
    steps: int, global_batch: int, resolution: int, progressive: tuple[tuple[float, int], ...] = ()
) -> Callable[[int], int]:
    """The side of images by the samples seen before a batch.

    `progressive` holds (share of the budget from which on, side in pixels), in rising order; empty: always the model's.
    """
    if not progressive:
        return lambda samples_seen: resolution
    shares = [share for share, _ in progressive]
    if shares[0] != 0 or shares != sorted(set(shares)) or shares[-1] >= 1:
        raise ConfigError(
            f"train.progressive must rise from 0 to below 1 in its shares; got {shares}. Example: [[0, 48], [0.7, 64]]"
        )
    if min(side for _, side in progressive) < 1:
        raise ConfigError(f"train.progressive must have sides of at least one pixel; got {list(progressive)}.")
    if progressive[-1][1] != resolution:
        raise ConfigError(
            f"train.progressive must end at the model's resolution of {resolution}; got {progressive[-1][1]}. "
            "Otherwise the model is evaluated at a size that it was not trained for last."
        )
    starts = [(round(share * steps) * global_batch, side) for share, side in progressive]
    return lambda samples_seen: [side for start, side in starts if start <= samples_seen][-1]
