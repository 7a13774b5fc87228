"""Cross-entropy from states instead of logits: the matrix of logits, tokens x vocabulary, is never there at once.

Value and gradient are found together, some rows at a time, in float32: as many logits as a tile has room for exist, and
none is kept for the backward pass.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.objectives.tiles import with_gradient

TILE = 1 << 22
"""Logits that are formed at a time (16 MB)."""


class TokenLoss(NamedTuple):
    """Per token, without gradient: `nll`, -log p(target); `log_z`, the log of the sum of exponentials; if it is `top`."""

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


class _Tile:
    """Some rows' logits and what follows from them. Products run in the precision around, sums in float32."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> None:
        self.hidden, self.weight, self.targets = hidden, weight, targets
        self.logits = torch.nn.functional.linear(hidden, weight.to(hidden.dtype)).float()
        if bias is not None:
            self.logits += bias.float()
        self.log_z = self.logits.logsumexp(1)
        chosen = self.logits.gather(1, targets[:, None])[:, 0]
        self.nll = self.log_z - chosen
        self.top = (chosen >= self.logits.amax(1)).float()

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
