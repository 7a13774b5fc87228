"""The gradient of one global batch, in as many pieces as memory needs, and always the gradient of the whole.

An uncoupled objective's pieces are summed with their counts. A coupled one (contrastive) needs every embedding before
any pair has a loss, so its embeddings are cached (Gao et al. 2021, arXiv:2101.06983, GradCache):

1. encode each piece without gradient, noting the random state that it started from; but the first `kept` pieces with
   it, for these graphs there is room, and they need no second pass;
2. the loss of all cached embeddings, once: it gives the gradient of each embedding, and of what the loss itself owns
   (the logit scale, exactly once);
3. send the embeddings' gradient through the kept graphs; encode each other piece again from its noted random state, so
   that dropout draws the same, and send it through those.

So k pieces are 2k - kept passes. The kept ones come first, so that batch norms note all pieces in their order, random
numbers end where they would have, and the one piece that synchronises ranks is never a kept one.

Under DDP everything with a gradient goes through the one forward that DDP knows (`_Passage`), and only the last piece
synchronises. What the loss owns has its gradient by then and takes part in the last piece with a zero.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.distributed import all_sum, world_size
from diptych.core.errors import ConfigError, TrainingError
from diptych.core.progress import say
from diptych.nn.checkpointing import is_checkpointed, set_checkpointing
from diptych.objectives.objective import Losses, Objective
from diptych.train.batch_norms import BatchNormAtRest, RunningStatistics
from diptych.train.sharding import average_whole, is_sharded, local, silent, wrap


@dataclass(frozen=True)
class Gradient:
    """What a step found: the losses (this rank's; no graph), and what was encoded, for `Objective.health`."""

    losses: Losses
    encoded: dict[str, Tensor]
    batch: Batch


@dataclass(frozen=True)
class Way:
    """How the gradient of a batch is taken: it changes memory and time, not the gradient.

    micro_batch  pairs in a piece; 0: all at once
    kept         pieces whose graphs there is room for at once; one takes no more memory than none
    checkpoint   whether blocks keep only their inputs
    """

    micro_batch: int = 0
    kept: int = 1
    checkpoint: bool = False

    def words(self, pairs: int) -> str:
        """What it is for a share of `pairs`."""
        m = min(self.micro_batch or pairs, pairs)
        how = f"all {pairs:,} pairs at once" if m == pairs else f"{-(-pairs // m):,} pieces of {m:,} pairs"
        return how + (", blocks computed again" if self.checkpoint else "")


Leaner = Callable[[Way, int], Way | None]
"""The next way with less memory for a share of so many pairs; None: there is none."""


class Accumulator:
    """Puts the gradient of a batch into `.grad` of the objective's parameters, equal on all ranks.

    `micro_batch`: pairs in a piece, 0: all at once. `kept`: how many pieces' graphs there is room for (one takes no
    more memory than none). `leaner` may be set: if the very first batch finds no memory, it is taken that way instead.
    """

    def __init__(self, objective: Objective, micro_batch: int = 0, precision: str = "float32", kept: int = 1) -> None:
        if micro_batch < 0 or kept < 0:
            raise ConfigError(
                f"train.micro_batch must be at least 0 (0: all at once), and so must kept; got {micro_batch} and "
                f"{kept}. A run that is given -1 measures first (train/probe.py)."
            )
        self.objective = objective
        self.micro_batch, self.kept = micro_batch, kept
        self.precision = precision
        self.leaner: Leaner | None = None
        self._fits = False
        self.passage = wrap(_Passage(objective))

    def __call__(self, batch: Batch) -> Gradient:
        """Adds the gradient of the global batch, of which `batch` is this rank's share.

        Raises TrainingError where the device's memory does not hold it.
        """
        while True:
            before = None if self._fits else (_random_state(self.device), RunningStatistics(self.objective))
            try:
                gradient = self._gradient(batch)
                self._fits = True
                return gradient
            except torch.OutOfMemoryError as error:
                what = str(error).partition(". ")[0]
            # outside of the handler, which holds the tensors of the failed pass
            if before is None or not self._take_leaner_way(batch.size, what):
                raise TrainingError(
                    f"a step must fit into the memory of {self.device}; {what}. Lower train.micro_batch (it was "
                    f"{self.way.micro_batch or batch.size}), set train.checkpoint_activations=true, and go on with "
                    "--resume: the gradient stays that of the whole batch."
                )
            _set_random_state(before[0], self.device)
            before[1].restore()

    @property
    def way(self) -> Way:
        """How gradients are taken now."""
        return Way(self.micro_batch, self.kept, is_checkpointed(self.objective))

    def _take_leaner_way(self, pairs: int, what: str) -> bool:
        """Whether there is another way to try. Not over several processes: the others are waiting in a collective."""
        way = self.leaner(self.way, pairs) if self.leaner is not None and world_size() == 1 else None
        if way is None:
            return False
        self.objective.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        say(f"the first step does not fit into memory ({what}); it is tried again: {way.words(pairs)}.")
        set_checkpointing(self.objective, way.checkpoint)
        self.micro_batch, self.kept = way.micro_batch, way.kept
        return True

    def _gradient(self, batch: Batch) -> Gradient:
        pieces = self._pieces(batch)
        if not self.objective.couples_pairs:
            return self._sum(pieces, batch)
        gradient = self._whole(batch) if len(pieces) == 1 else self._cached(pieces, batch)
        average_whole(self.objective)
        return gradient

    @torch.no_grad()
    def loss_only(self, batch: Batch) -> Losses:
        """The losses of a batch, encoded in pieces where the objective allows it, without gradient."""
        pieces = self._pieces(batch)
        if not self.objective.couples_pairs:
            with self.autocast():
                return _mean([self.objective(p) for p in pieces])
        rows = []
        for piece in pieces:
            with self.autocast():
                rows.append(self.objective.encode(piece))
        return self.objective.loss({k: torch.cat([r[k] for r in rows]) for k in rows[0]}, _ids_only(batch))

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that models run in; a fresh one for each pass, since it caches weights with their graph."""
        return autocast(self.device, self.precision)

    @property
    def device(self) -> torch.device:
        """Where the objective is."""
        return next(self.objective.parameters()).device

    def _pieces(self, batch: Batch) -> list[Batch]:
        size = self.micro_batch or batch.size
        return [batch.slice(i, min(i + size, batch.size)) for i in range(0, batch.size, size)]

    def _silent(self, last: bool) -> AbstractContextManager[Any]:
        return silent(self.passage, last)

    def _whole(self, batch: Batch) -> Gradient:
        with self.autocast():
            losses, encoded = self.passage(batch, encode_and_loss=True)
        losses.total.backward()
        return Gradient(_detached(losses), {k: v.detach() for k, v in encoded.items()}, _ids_only(batch))

    def _sum(self, pieces: list[Batch], batch: Batch) -> Gradient:
        """Backward of each sum of terms, then one division by the number of terms of all pieces and ranks."""
        found = []
        for i, piece in enumerate(pieces):
            with self._silent(last=i == len(pieces) - 1), self.autocast():
                losses = self.passage(piece)
                (losses.total * losses.count).backward()
            found.append(_detached(losses))
        losses = _mean(found)
        everyone = all_sum(losses.count).clamp_min(1)
        average_whole(self.objective)
        for p in self.objective.parameters():
            if p.grad is not None:
                local(p.grad).mul_(world_size() / everyone)  # DDP has divided by the number of ranks already
        return Gradient(_share(losses, everyone), {}, _ids_only(batch))

    def _cached(self, pieces: list[Batch], batch: Batch) -> Gradient:
        kept = min(self.kept, len(pieces) - 1)  # the last one synchronises ranks, and is never kept
        graphs = [self._encode_with_graph(piece) for piece in pieces[:kept]]
        rows = [{k: v.detach() for k, v in graph.items()} for graph in graphs]
        states = []
        for piece in pieces[kept:]:
            states.append(_random_state(self.device))
            rows.append(self._encode_at_rest(piece))
        cached = {k: torch.cat([r[k] for r in rows]) for k in rows[0]}
        del rows
        # a frozen tower's vectors need no gradient; without a graph to tell, all are given one
        moved = {k for k, v in (graphs[0] if graphs else cached).items() if v.requires_grad or not graphs}
        leaves = {k: v.requires_grad_(k in moved and v.is_floating_point()) for k, v in cached.items()}
        bare = _ids_only(batch)
        before = {p for p in self.objective.parameters() if p.grad is not None}
        with self.autocast():
            losses = self.objective.loss(leaves, bare)
        losses.total.backward()
        owned = [p for p in self.objective.parameters() if p.grad is not None and p not in before]
        if is_sharded(self.objective):
            owned = []  # summed over ranks as soon as it was there
        gradients = {k: v.grad for k, v in leaves.items() if v.grad is not None}
        start = 0
        for i, piece in enumerate(pieces):
            stop = start + piece.size
            wanted = {k: g[start:stop] for k, g in gradients.items()}
            if i < kept:
                self._backward_through(graphs[i], wanted)
                graphs[i] = {}  # its memory is wanted by the next
            else:
                _set_random_state(states[i - kept], self.device)
                self._encode_again(piece, wanted, owned, last=i == len(pieces) - 1)
            start = stop
        return Gradient(_detached(losses), {k: v.detach() for k, v in leaves.items()}, bare)

    def _encode_with_graph(self, piece: Batch) -> dict[str, Tensor]:
        with self._silent(last=False), self.autocast():
            encoded: dict[str, Tensor] = self.passage(piece, encode_only=True)
        return encoded

    @torch.no_grad()
    def _encode_at_rest(self, piece: Batch) -> dict[str, Tensor]:
        with BatchNormAtRest(self.objective), self._silent(last=False), self.autocast():
            encoded: dict[str, Tensor] = self.passage(piece, encode_only=True)
        return encoded

    def _backward_through(self, graph: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
        names = [k for k in wanted if graph[k].requires_grad]
        with self._silent(last=False):
            torch.autograd.backward([graph[k] for k in names], [wanted[k].to(graph[k].dtype) for k in names])

    def _encode_again(self, piece: Batch, wanted: dict[str, Tensor], owned: list[nn.Parameter], last: bool) -> None:
        with self._silent(last), self.autocast():
            surrogate = self.passage(piece, gradients=wanted, owned=owned if last else [])
        with self._silent(last):
            if surrogate.requires_grad:
                surrogate.backward()


class _Passage(nn.Module):
    """The one forward through which DDP sees an objective: its loss, or the two halves of the cache."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(
        self,
        batch: Batch,
        encode_and_loss: bool = False,
        encode_only: bool = False,
        gradients: dict[str, Tensor] | None = None,
        owned: list[nn.Parameter] | None = None,
    ) -> Any:
        if encode_and_loss:
            encoded = self.objective.encode(batch)
            return self.objective.loss(encoded, batch), encoded
        if encode_only:
            return self.objective.encode(batch)
        if gradients is None:
            return self.objective(batch)
        encoded = self.objective.encode(batch)
        # A number whose gradient is the gradient wanted: sum <encoded, constant>. In float32, which holds bfloat16.
        terms = [(encoded[k].float() * g.float()).sum() for k, g in gradients.items()]
        surrogate = torch.stack(terms).sum() if terms else torch.zeros((), device=next(iter(encoded.values())).device)
        for p in owned or ():
            surrogate = surrogate + 0 * p.sum()  # its gradient is there already; DDP must only see it take part
        return surrogate


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Where models run in "bfloat16": linear maps and convolutions in it, what needs more in float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _ids_only(batch: Batch) -> Batch:
    return replace(batch, images=None, patches=None, patch_index=None, image_record=None, tokens=None, loss_mask=None)


def _mean(found: list[Losses]) -> Losses:
    """The mean over all terms of several pieces."""
    counts = torch.stack([x.count.float() for x in found])
    weights = counts / counts.sum().clamp_min(1)
    parts = {k: (torch.stack([x.parts[k] for x in found]) * weights).sum() for k in found[0].parts}
    return Losses((torch.stack([x.total for x in found]) * weights).sum(), counts.sum(), parts)


def _share(losses: Losses, everyone: Tensor) -> Losses:
    """Scaled so that the plain mean over ranks is the mean over all ranks' terms."""
    factor = losses.count / everyone * world_size()
    return Losses(losses.total * factor, losses.count, {k: v * factor for k, v in losses.parts.items()})


def _detached(losses: Losses) -> Losses:
    return Losses(losses.total.detach(), losses.count.detach(), {k: v.detach() for k, v in losses.parts.items()})


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Of the CPU and of the objective's own device, which need not be the current one."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
