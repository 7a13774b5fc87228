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
        self.state: dict[str, Tensor] = {n: t.detach().clone() for n, t in model.state_dict().items()}
        device = next(iter(self.state.values())).device if self.state else None
        self._updates = torch.zeros((), dtype=torch.float64, device=device)  # there, since a device skips steps itself

    @property
    def updates(self) -> int:
        """How many steps were taken in. Reading it waits for the device."""
        return int(self._updates)

    @torch.no_grad()
    def update(self, model: Model, skipped: Tensor | None = None) -> None:
        """Take in the model's weights as they are now, unless `skipped` is 1: a number on the model's device, which is
        not read there (None: not skipped)."""
        if self._updates.device.type == "cpu":
            if skipped is None or not skipped:
                self._take_in(model)
        else:
            self._take_in_unless(model, torch.zeros_like(self._updates) if skipped is None else skipped)

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Go on from a checkpoint."""
        for n, t in self.state.items():
            t.copy_(state[n])
        self._updates.fill_(updates)

    def _take_in(self, model: Model) -> None:
        rate = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self._updates += 1
        now = model.state_dict()
        names = self._moving()
        torch._foreach_lerp_([local(self.state[n]) for n in names], [local(now[n]) for n in names], rate)
        for n, t in self.state.items():
            if not t.is_floating_point():
                t.copy_(now[n])

    def _take_in_unless(self, model: Model, skipped: Tensor) -> None:
        """The same with a rate that only the device knows: 0 if the step is skipped, when nothing may move."""
        n = self._updates
        rate = ((1 - ((1 + n) / (10 + n)).clamp(max=self.decay)) * (1 - skipped)).float()
        self._updates += 1 - skipped
        now, names = model.state_dict(), self._moving()
        mine = [local(self.state[n]) for n in names]
        away = torch._foreach_sub([local(now[n]) for n in names], mine)
        torch._foreach_mul_(away, rate)
        torch._foreach_add_(mine, away)
        for name, t in self.state.items():
            if not t.is_floating_point():
                t.copy_(torch.where(skipped > 0, t, now[name]))

    def _moving(self) -> list[str]:
        return [n for n, t in self.state.items() if t.is_floating_point() and n not in self.frozen]


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
