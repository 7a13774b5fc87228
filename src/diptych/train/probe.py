"""How a batch fits into memory: measured on a few pairs, then the fastest way of taking its gradient that has room.

The ways, whose gradient is the same (`train/accumulate.py`, `nn/checkpointing.py`), in units of one forward pass:

    all pairs at once                                3
    pieces, whose vectors are cached                 3 + the share of pairs whose graph is not kept
    all at once, blocks computed again               4
    pieces, blocks computed again                    4 + that share

A piece costs a little more than its pairs do (`STARTUP`). Batch norms take their statistics over a piece, so pieces are
another function for them, and are taken only if nothing else has room. What an uncoupled loss is summed from, pieces of
any size, is 3.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import broadcast_object, gather, world_size
from diptych.data.dataset import Dataset
from diptych.data.tokenize import Tokenizer
from diptych.nn.checkpointing import is_checkpointed, recomputable_blocks, set_checkpointing
from diptych.objectives.objective import Objective
from diptych.objectives.tiles import tile_size
from diptych.train.accumulate import Way, autocast
from diptych.train.batch_norms import RunningStatistics, batch_norms
from diptych.train.config import RunConfig, TrainConfig
from diptych.train.live_bytes import LiveBytes, tensors_of
from diptych.train.synthetic_batch import Batches, batches_like, caption_lengths
from diptych.train.tables import cached_widths

STARTUP = 32
"""As many pairs does a pass over a piece cost on top: launches, small matrices."""
SHARE = {"cuda": 0.92, "cpu": 0.75}
"""Of the free memory that a step may fill: the rest is for kernels' own room, fragmentation, other processes."""
BATCHES = 2
"""Batches of pixels and tokens that are there at once: one is computed on, the next one arrives."""
VECTORS = 8
"""Copies of a batch's vectors around a coupled loss: cached, gathered, their gradients, for both sides."""


@dataclass(frozen=True)
class Line:
    """Bytes as a function of pairs."""

    constant: float
    slope: float

    def __call__(self, pairs: int) -> float:
        """The bytes of so many pairs."""
        return self.constant + self.slope * pairs


@dataclass(frozen=True)
class Costs:
    """What a step holds besides weights, in bytes.

    input_      a pair's pixels and tokens;  vector  a pair's vectors, once
    plain       peak of forward and backward;  recomputed  the same under checkpointing;  forward  without gradient
    fixed       what is not there yet: gradients, the optimizer's moments, a moving average
    """

    input_: float
    vector: float
    plain: Line
    recomputed: Line
    forward: Line
    fixed: float


@dataclass(frozen=True)
class Situation:
    """What the choice depends on besides costs. `pairs`: of one process's share; `everyone`: of the global batch."""

    pairs: int
    everyone: int
    coupled: bool
    batch_norm: bool
    device: torch.device
    recompute: bool = False


def peak(way: Way, costs: Costs, at: Situation) -> float:
    """The most bytes that a step of this way holds at once."""
    line = costs.recomputed if way.checkpoint else costs.plain
    there = costs.fixed + BATCHES * costs.input_ * at.pairs
    m = min(way.micro_batch or at.pairs, at.pairs)
    if not at.coupled:
        return there + line(m)
    size = tile_size(at.device)
    tiles = 4 * min(at.pairs * at.everyone, size.kept) + 16 * min(at.pairs * at.everyone, size.rows * size.columns)
    loss = tiles + VECTORS * costs.vector * (at.pairs + at.everyone) / 2
    if m == at.pairs:
        return there + line(m) + loss
    kept = min(way.kept, math.ceil(at.pairs / m) - 1)
    return there + max(kept * line(m) + max(loss, costs.forward(m)), loss - tiles + line(m))


def work(way: Way, at: Situation) -> float:
    """The work of a step in forward passes over all pairs."""
    m = min(way.micro_batch or at.pairs, at.pairs)
    pieces = math.ceil(at.pairs / m)
    forward, passes = (4 if way.checkpoint else 3), pieces
    again = 0.0
    if at.coupled and pieces > 1:
        again, passes = 1 - min(1.0, way.kept * m / at.pairs), 2 * pieces - way.kept
    return forward + again + 3 * STARTUP * (passes - 1) / at.pairs


def choose(costs: Costs, at: Situation, budget: float) -> Way:
    """The fastest way whose peak is within `budget` bytes; if none is, the leanest."""
    found = [Way(checkpoint=c) for c in ((True,) if at.recompute else (False, True))]
    found = [way for way in found if peak(way, costs, at) <= budget]
    pieces = [w for c in ((True,) if at.recompute else (False, True)) if (w := _largest_piece(costs, at, budget, c))]
    if not at.batch_norm or not found:
        found += pieces
    if found:
        return min(found, key=lambda way: (work(way, at), -way.micro_batch))
    return Way(2 if at.batch_norm and at.pairs > 1 else 1, 1, True)


def leaner(way: Way, pairs: int, batch_norm: bool) -> Way | None:
    """The next way that needs less memory, for when a measurement was too hopeful; None: there is none."""
    m = min(way.micro_batch or pairs, pairs)
    if not way.checkpoint and (batch_norm or m <= STARTUP):
        return replace(way, checkpoint=True)
    return replace(way, micro_batch=math.ceil(m / 2), kept=1) if m > (2 if batch_norm else 1) else None


def _largest_piece(costs: Costs, at: Situation, budget: float, checkpoint: bool) -> Way | None:
    """Pieces of equal size, as few as fit."""
    smallest, n = (2 if at.batch_norm else 1), at.pairs
    low, high = 1, n  # in numbers of pieces: `high` may not fit either
    while low < high:
        k = (low + high) // 2
        if peak(Way(math.ceil(n / k), 1, checkpoint), costs, at) <= budget:
            high = k
        else:
            low = k + 1
    way = Way(math.ceil(n / high), 1, checkpoint)
    fits = high > 1 and way.micro_batch >= smallest and peak(way, costs, at) <= budget
    return way if fits else None


def available(device: torch.device) -> float:
    """Bytes that this process may still fill on `device`, with a share left free. Several processes share a host."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached - (1 - SHARE["cuda"]) * total
    free = psutil.virtual_memory().available
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:  # a container
        free = min(free, max(0, limit - used))
    return SHARE["cpu"] * free / int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no container, or "max"
        return None


def agreed(budget: float, device: torch.device) -> float:
    """The smallest budget of all ranks."""
    return float(gather(torch.tensor([budget], dtype=torch.float64, device=device)).min())


def measure(
    objective: Objective, batches: Batches, pairs: int, precision: str, room: float = math.inf, thorough: bool = True
) -> Costs:
    """The costs of a step, from passes over a few pairs; everything is then as it was: weights, gradients, statistics,
    random state. On the meta device nothing is computed.

    Passes hardly hold more than a quarter of `room` bytes. Not `thorough`: only the plain way is measured, which is an
    upper bound of the others.
    """
    device = next(objective.parameters()).device
    trained = [p for p in objective.parameters() if p.requires_grad]
    fixed = 4.0 * sum(p.numel() * p.element_size() for p in trained)  # a gradient, two moments and perhaps an average
    with _as_it_was(objective, trained):
        for p in trained:  # of full size already in the first pass, or small batches would seem large
            p.grad = torch.zeros_like(p)
        sizes = _sizes(objective, batches, pairs, precision, room)
        plain = _line(objective, batches, sizes, precision)
        forward = _line(objective, batches, sizes, precision, gradient=False) if thorough else plain
        recomputed = plain
        if thorough and recomputable_blocks(objective):
            set_checkpointing(objective, True)
            recomputed = _line(objective, batches, sizes, precision)
    batch = batches(sizes[0])
    input_ = sum(t.numel() * t.element_size() for t in tensors_of(vars(batch))) / batch.size
    with torch.no_grad(), _as_it_was(objective, trained), autocast(device, precision):
        encoded = objective.encode(batch) if objective.couples_pairs else {}
    vector = sum(4 * t.numel() for t in encoded.values()) / batch.size
    return broadcast_object(Costs(input_, vector, plain, recomputed, forward, fixed))


def _sizes(objective: Objective, batches: Batches, pairs: int, precision: str, room: float) -> tuple[int, int]:
    """Two numbers of pairs to measure at: few on a CPU, where they take time; as many as tell on a GPU."""
    device = next(objective.parameters()).device.type
    if device == "meta":  # nothing is computed
        return (min(pairs, 255) + 1) // 2, min(pairs, 255)
    few = (min(5, pairs), min(7, pairs))  # odd, so that an activation hardly has the shape of a weight
    if device != "cuda":
        return few
    each = _peak(objective, batches(few[1]), precision)[1] / few[1]  # the first pass also warms the libraries up
    most = max(few[1], min(pairs, 128, int(room / 4 / max(each, 1))))
    return max(few[0], most // 2), most


def _line(
    objective: Objective, batches: Batches, sizes: tuple[int, int], precision: str, gradient: bool = True
) -> Line:
    """Through the peaks at two sizes; never flatter than what the forward pass leaves."""
    small, large = sizes
    (held_a, a), (held_b, b) = (_peak(objective, batches(n), precision, gradient) for n in sizes)
    if small == large:
        return Line(0.0, b / large)
    slope = max((b - a) / (large - small), (held_b - held_a) / (large - small), 0.0)
    return Line(max(0.0, b - slope * large), slope)


def _peak(objective: Objective, batch: Batch, precision: str, gradient: bool = True) -> tuple[int, int]:
    """(bytes held after the forward pass, most bytes until the end of the backward pass)."""
    device = next(objective.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        total = _forward(objective, batch, precision, gradient)
        held = torch.cuda.memory_allocated(device) - before
        if gradient:
            total.backward()
        torch.cuda.synchronize(device)
        return held, torch.cuda.max_memory_allocated(device) - before
    shapes = {tuple(s) for p in objective.parameters() for s in (p.shape, p.shape[::-1])}
    grads = [p.grad for p in objective.parameters() if p.grad is not None]
    with LiveBytes(tensors_of(objective, vars(batch), grads), shapes) as live:
        total = _forward(objective, batch, precision, gradient)
        held = live.now
        if gradient:
            total.backward()
        del total
    return held, live.peak


def _forward(objective: Objective, batch: Batch, precision: str, gradient: bool) -> Tensor:
    with torch.set_grad_enabled(gradient), autocast(next(objective.parameters()).device, precision):
        if not objective.couples_pairs:
            return objective(batch).total
        rows = [v for v in objective.encode(batch).values() if v.requires_grad or not gradient]
        return torch.stack([v.float().sum() for v in rows]).sum()


@contextmanager
def _as_it_was(objective: Objective, trained: list[torch.nn.Parameter]) -> Iterator[None]:
    """Afterwards no pass has been here: random state, running statistics, gradients and checkpointing are as before."""
    device = next(objective.parameters()).device
    statistics, grads = RunningStatistics(objective), [p.grad for p in trained]
    checkpointed = is_checkpointed(objective)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        set_checkpointing(objective, checkpointed)
        statistics.restore()
        for p, grad in zip(trained, grads, strict=True):
            p.grad = grad
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)


def situation(objective: Objective, pairs: int, recompute: bool) -> Situation:
    """What a run's share of a batch means for the choice."""
    device = next(objective.parameters()).device
    noted = any(m.training for m in batch_norms(objective))
    return Situation(pairs, pairs * world_size(), objective.couples_pairs, noted, device, recompute)


def find_way(
    config: TrainConfig, objective: Objective, batches: Batches, before: dict[str, Any], budget: float | None = None
) -> tuple[Way, str]:
    """How a run takes its gradients, and why in words: as it is told, as it did before, or as a measurement finds.

    A collective. `before` is what `noted` gave when the run was saved; `budget` the bytes to fill (None: what is free).
    """
    pairs = config.global_batch // world_size()
    if config.micro_batch >= 0:
        way = Way(config.micro_batch, 1, config.checkpoint_activations)
        return way, f"{way.words(pairs)} (given)"
    if before and before["pairs"] == pairs:
        way = Way(before["micro_batch"], before["kept"], before["checkpoint"])
        return way, f"{way.words(pairs)} (as before)"
    at = situation(objective, pairs, config.checkpoint_activations)
    room = agreed(available(at.device) if budget is None else budget, at.device)
    costs = measure(objective, batches, pairs, config.precision, room, thorough=at.recompute)
    plain = Way(checkpoint=at.recompute)
    if peak(plain, costs, at) > room:
        costs = measure(objective, batches, pairs, config.precision, room)
    way = choose(costs, at, room)
    return way, words(way, pairs, peak(way, costs, at), room)


def way_of_run(
    config: RunConfig, objective: Objective, dataset: Dataset, tokenizer: Tokenizer, state: dict[str, Any]
) -> tuple[Way, str]:
    """`find_way` with batches like those of the run. `state` is that of the checkpoint it goes on from; else empty."""
    form, split = config.model.image_format, dataset.split(config.data.split)
    cached = cached_widths(config, objective)
    device = next(objective.parameters()).device

    @cache
    def batches() -> Batches:  # not before a measurement needs them
        return batches_like(form, caption_lengths(split, tokenizer), device, cached)

    return find_way(config.train, objective, lambda pairs: batches()(pairs), state.get("way") or {})


def noted(way: Way, pairs: int) -> dict[str, Any]:
    """What a checkpoint keeps of it. `pairs`: of one process's share, since another share is another question."""
    return {"pairs": pairs, **asdict(way)}


def words(way: Way, pairs: int, most: float, budget: float) -> str:
    """What is said of a choice before the first step."""
    least = "" if most <= budget else "; more than there is, and no way is leaner: lower train.global_batch"
    return f"{_size(most)} of {_size(budget)} a step: {way.words(pairs)}{least}"


def _size(amount: float) -> str:
    unit, name = (1e9, "GB") if amount >= 1e8 else (1e6, "MB")
    value = amount / unit
    return f"{value:,.0f} {name}" if value >= 10 else f"{value:.2g} {name}"
