"""Cross-entropy from states instead of logits: the matrix of logits, tokens x vocabulary, is never there at once.

Value and gradient are found together, some rows at a time, in float32: as many logits as a tile has room for exist, and
none is kept for the backward pass.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.models.writer import NextTokens
from diptych.objectives.sides import share_of_mean
from diptych.objectives.tiles import with_gradient

TILE = 1 << 22
"""Logits that are formed at a time (16 MB)."""


class TokenLoss(NamedTuple):
    """Per token, without gradient: `nll`, -log p(target); `log_z`, the log of the sum of exponentials; if the target
    is `top`."""

    nll: Float[Tensor, " m"]
    log_z: Float[Tensor, " m"]
    top: Float[Tensor, " m"]


def token_loss(
    hidden: Float[Tensor, "m d"],
    weight: Float[Tensor, "v d"],
    bias: Float[Tensor, " v"] | None,
    targets: Int64[Tensor, " m"],
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    scale: Float[Tensor, " m"] | None = None,
) -> tuple[Float[Tensor, ""], TokenLoss]:
    """The sum over tokens of scale times [(1 - e) nll + e mean_v(-log p_v) + z log_z^2], and each token's part.

    Label smoothing e: Szegedy et al. 2016; z-loss: Chowdhery et al. 2022, section 5. `scale` (None: ones) carries no
    gradient. Differentiable by `hidden`, `weight` and `bias`; equal to the dense form, which
    tests/reference/token_loss.py spells out.
    """
    inputs = [hidden, weight, *([] if bias is None else [bias])]
    wanted = [torch.is_grad_enabled() and x.requires_grad for x in inputs]
    with torch.no_grad():
        grads = [
            torch.zeros(x.shape, dtype=torch.float32, device=x.device) if w else None
            for x, w in zip(inputs, wanted, strict=True)
        ]
        total = torch.zeros((), device=hidden.device)
        found = TokenLoss(*(torch.empty(len(targets), device=hidden.device) for _ in range(3)))
        step = max(1, TILE // len(weight))
        for start in range(0, len(targets), step):
            rows = slice(start, start + step)
            tile = _Tile(hidden[rows], weight, bias, targets[rows])
            share = torch.ones_like(tile.nll) if scale is None else scale[rows]
            total += (share * tile.value(label_smoothing, z_loss)).sum()
            for kept, new in zip(found, (tile.nll, tile.log_z, tile.top), strict=True):
                kept[rows] = new
            if any(wanted):
                _add_gradients(grads, rows, tile, tile.gradient(label_smoothing, z_loss).mul_(share[:, None]))
    gradients = [(x, None if g is None else g.to(x.dtype)) for x, g in zip(inputs, grads, strict=True)]
    return with_gradient(total, gradients), found


def each_token_loss(
    hidden: Float[Tensor, "m d"],
    weight: Float[Tensor, "v d"],
    bias: Float[Tensor, " v"] | None,
    targets: Int64[Tensor, " m"],
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Float[Tensor, " m"], TokenLoss]:
    """The summands of `token_loss`, each with its gradient: for losses that weigh tokens by what is known later.

    A gradient that differs from token to token cannot be found before the weights are, so tiles are formed a second
    time in the backward pass, unless one tile holds all: four products instead of three.
    """
    each, nll, log_z, top = _EachToken.apply(hidden, weight, bias, targets, label_smoothing, z_loss)
    return each, TokenLoss(nll, log_z, top)


class _EachToken(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float, z_loss: float
    ) -> tuple[Tensor, ...]:
        found = tuple(torch.empty(len(targets), device=hidden.device) for _ in range(4))
        step = max(1, TILE // len(weight))
        ctx.settings, ctx.kept = (smoothing, z_loss, step, _precision_around(hidden.device)), None
        for start in range(0, len(targets), step):
            rows = slice(start, start + step)
            tile = _Tile(hidden[rows], weight, bias, targets[rows])
            for whole, new in zip(found, (tile.value(smoothing, z_loss), tile.nll, tile.log_z, tile.top), strict=True):
                whole[rows] = new
            ctx.kept = tile.logits if len(targets) <= step and any(ctx.needs_input_grad) else None
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_each: Tensor, *others: Tensor) -> Any:
        hidden, weight, bias, targets = ctx.saved_tensors
        smoothing, z_loss, step, precision = ctx.settings
        inputs = [hidden, weight, *([] if bias is None else [bias])]
        grads = [
            torch.zeros(x.shape, dtype=torch.float32, device=x.device) if wanted else None
            for x, wanted in zip(inputs, ctx.needs_input_grad, strict=False)
        ]
        with precision():
            for start in range(0, len(targets), step):
                rows = slice(start, start + step)
                tile = _Tile(hidden[rows], weight, bias, targets[rows], ctx.kept)
                _add_gradients(grads, rows, tile, tile.gradient(smoothing, z_loss).mul_(by_each[rows, None]))
        ctx.kept = None
        cast = [None if g is None else g.to(x.dtype) for x, g in zip(inputs, grads, strict=True)]
        return (*cast, *([None] if bias is None else []), None, None, None)


def written_rows(
    said: NextTokens,
    head: tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None],
    records: int,
    label_smoothing: float,
) -> dict[str, Float[Tensor, " b"]]:
    """A row a record of the loss of writing its text, for objectives whose rows are kept, gathered and joined.

    "written": equal shares of `token_loss`, whose sum alone has a meaning; "nll", "foreseen" and "targets": each
    record's own sums, without gradient, of -log p, of tokens foreseen, and of tokens.
    """
    summed, each = token_loss(said.hidden, *head, said.targets, label_smoothing)
    zeros = torch.zeros(records, device=said.hidden.device)
    sums = {"nll": each.nll, "foreseen": each.top, "targets": torch.ones_like(each.nll)}
    rows = {n: zeros.index_add(0, said.record, x) for n, x in sums.items()}
    return {"written": summed.expand(records) / records, **rows}


def writing_loss(rows: dict[str, Tensor]) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """(the loss, its parts "nll" and "foreseen") from what `written_rows` gave: means over all ranks' tokens, as this
    rank's part of a mean over ranks. A collective."""
    share = share_of_mean(rows["targets"])
    loss, nll, foreseen = (rows[n].float().sum() * share for n in ("written", "nll", "foreseen"))
    return loss, {"nll": nll.detach(), "foreseen": foreseen.detach()}


def _precision_around(device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What brings back, in a backward pass, the autocast that is around now."""
    kind = device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext
    on, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return lambda: torch.autocast(kind, dtype, enabled=on)


class _Tile:
    """Some rows' logits and what follows from them. Products run in the precision around, sums in float32."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, logits: Tensor | None = None
    ) -> None:
        self.hidden, self.weight, self.targets = hidden, weight, targets
        self.logits = self._logits(bias) if logits is None else logits
        self.log_z = self.logits.logsumexp(1)
        chosen = self.logits.gather(1, targets[:, None])[:, 0]
        self.nll = self.log_z - chosen
        self.top = (chosen >= self.logits.amax(1)).float()

    def _logits(self, bias: Tensor | None) -> Tensor:
        logits = torch.nn.functional.linear(self.hidden, self.weight.to(self.hidden.dtype)).float()
        return logits if bias is None else logits + bias.float()

    def value(self, smoothing: float, z_loss: float) -> Tensor:
        even = self.log_z - self.logits.mean(1)
        return (1 - smoothing) * self.nll + smoothing * even + z_loss * self.log_z.square()

    def gradient(self, smoothing: float, z_loss: float) -> Tensor:
        """Of `value` by the logits."""
        g = (self.logits - self.log_z[:, None]).exp_()
        if z_loss:
            g *= (1 + 2 * z_loss * self.log_z)[:, None]
        if smoothing:
            g -= smoothing / g.shape[1]
        g[torch.arange(len(g), device=g.device), self.targets] -= 1 - smoothing
        return g


def _add_gradients(grads: list[Tensor | None], rows: slice, tile: _Tile, g: Tensor) -> None:
    by_hidden, by_weight, *by_bias = grads
    if by_hidden is not None:
        by_hidden[rows] = (g.to(tile.hidden.dtype) @ tile.weight.to(tile.hidden.dtype)).float()
    if by_weight is not None:
        by_weight += (g.to(tile.hidden.dtype).T @ tile.hidden).float()
    if by_bias and by_bias[0] is not None:
        by_bias[0] += g.sum(0)
