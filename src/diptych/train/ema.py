"""A moving average of the weights, which often evaluates better than the weights themselves."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from diptych.models.model import Model
from diptych.train.sharding import local


class Ema:
    """shadow <- shadow + (1 - d)(weights - shadow) after every step, with d = min(decay, (1 + n) / (10 + n)).

    The ramp over the n updates so far lets the average forget the random start of a short run. Buffers that are no
    floats (counts of batches) are copied. `state` is by the names of `model.state_dict()`, and sharded where that is;
    what is `frozen` stays as it is to the bit.
    """

    def __init__(self, model: Model, decay: float, frozen: Collection[str] = ()) -> None:
        self.decay = decay
        self.frozen = frozenset(frozen)
        self.updates = 0
        self.state: dict[str, Tensor] = {n: t.detach().clone() for n, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Take in the model's weights as they are now."""
        rate = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        now = model.state_dict()
        names = [n for n, t in self.state.items() if t.is_floating_point() and n not in self.frozen]
        torch._foreach_lerp_([local(self.state[n]) for n in names], [local(now[n]) for n in names], rate)
        for n, t in self.state.items():
            if not t.is_floating_point():
                t.copy_(now[n])

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Go on from a checkpoint."""
        for n, t in self.state.items():
            t.copy_(state[n])
        self.updates = updates


@contextmanager
def averaged(model: Model, ema: Ema | None) -> Iterator[None]:
    """While open, `model` holds the average instead of its own weights (if there is one)."""
    if ema is None:
        yield
        return
    own = {n: t.detach().clone() for n, t in model.state_dict().items()}
    model.load_state_dict(ema.state)
    try:
        yield
    finally:
        model.load_state_dict(own)
