"""What a step tells the host, without the host waiting for the step.

On a device a step is only asked for: the host goes on while it runs. To read a number of it (the loss, whether it is
finite) is to wait until it is done, and then the device waits for the host in turn, at every step. So the device itself
decides whether a step counts (`Verdict.skipped`), and what it tells is copied to the host behind it and read `LAG`
steps later, or when something is to be written (`Outcomes.take(everything=True)`). The delay is counted in steps and
never in time, so all ranks read the same numbers at the same step. On a CPU there is nothing to wait for and no delay.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from diptych.core.distributed import all_sum, world_size
from diptych.objectives.objective import Losses, Objective
from diptych.train.optimizer import gradient_norms, total_of

LAG = 2
"""Steps that a device may be behind the host."""


class Reported(NamedTuple):
    """What this rank's host knows of a step: sums over ranks are taken of it."""

    truncated: int = 0
    flops: float = 0.0
    stop: bool = False
    late: bool = False


@dataclass(frozen=True)
class Verdict:
    """A step as the device knows it; the same on all ranks.

    skipped   1 if the loss or the gradient is not finite, so that the step must change nothing, else 0
    norm      the norm of the whole gradient
    facts     mean losses, sums of what was reported, the norms of all gradients and of each
    """

    skipped: Float32[Tensor, ""]
    norm: Float[Tensor, ""]
    facts: Float[Tensor, " f"]
    losses: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """A step as the host knows it.

    step       its number, from 0
    values     mean losses over all ranks and the gradient's norm, not finite where the step was skipped
    reported   sums over all ranks
    not_finite names of the parameters whose gradient is not
    wait_s     how long this rank waited for its data
    """

    step: int
    values: dict[str, float]
    reported: Reported
    skipped: bool
    not_finite: tuple[str, ...]
    wait_s: float


def judge(objective: Objective, losses: Losses, reported: Reported) -> Verdict:
    """Whether a step counts, from what its backward pass has left in `.grad`: nothing is read. A collective."""
    names = ("loss", *losses.parts)
    mine = torch.stack([losses.total, *losses.parts.values()]).double()
    filled = [torch.full((), float(x), dtype=torch.float64, device=mine.device) for x in reported]
    summed = all_sum(torch.cat([mine, torch.stack(filled)]))
    means = summed[: len(names)] / world_size()
    # the gradient is the same everywhere by now, and so is its norm
    parameters, norms = gradient_norms(objective)
    norm = total_of(norms)
    finite = torch.isfinite(means[0]) & torch.isfinite(norm)
    facts = torch.cat([means, summed[len(names) :], norm.double()[None], norms.double()])
    return Verdict((~finite).float(), norm, facts, names, tuple(parameters))


class Outcomes:
    """Steps whose outcome has not been read yet, oldest first."""

    def __init__(self, device: torch.device, lag: int = LAG) -> None:
        self.cuda = device.type == "cuda"
        self.lag = lag if self.cuda else 0
        self._waiting: deque[tuple[int, Verdict, Tensor, torch.cuda.Event | None, float]] = deque()

    def put(self, step: int, verdict: Verdict, wait_s: float) -> None:
        """Have a step's facts copied to the host, when the device comes to it."""
        if self.cuda:
            told = torch.empty(verdict.facts.shape, dtype=verdict.facts.dtype, pin_memory=True)
            told.copy_(verdict.facts, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        else:
            told, event = verdict.facts, None
        self._waiting.append((step, verdict, told, event, wait_s))

    def take(self, everything: bool = False) -> list[Outcome]:
        """The outcomes that are `lag` steps old, or all of them: then the host waits for the device."""
        found = []
        while len(self._waiting) > (0 if everything else self.lag):
            step, verdict, told, event, wait_s = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            found.append(_read(step, verdict, told.tolist(), wait_s))
        return found

    def idle(self) -> bool:
        """Whether the device has done all that it was asked for: only then does waiting for data cost anything."""
        event = self._waiting[-1][3] if self._waiting else None
        return event is None or event.query()


def _read(step: int, verdict: Verdict, told: list[float], wait_s: float) -> Outcome:
    first = len(verdict.losses)
    second = first + len(Reported._fields)
    truncated, flops, stop, late = told[first:second]
    norm, norms = told[second], told[second + 1 :]
    values = {**dict(zip(verdict.losses, told, strict=False)), "grad_norm": norm}
    infinite = tuple(n for n, x in zip(verdict.parameters, norms, strict=True) if not abs(x) < float("inf"))
    skipped = not (abs(values["loss"]) < float("inf") and abs(norm) < float("inf"))
    return Outcome(step, values, Reported(int(truncated), flops, stop > 0, late > 0), skipped, infinite, wait_s)
