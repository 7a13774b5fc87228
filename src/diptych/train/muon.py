"""Muon for the matrices of a model and AdamW for everything else, in one optimizer.

A step along a matrix's momentum whose singular values have all been set to about one (Jordan et al. 2024, "Muon: an
optimizer for hidden layers in neural networks"), scaled so that its root mean square is that of AdamW's steps
(Liu et al. 2025, arXiv:2502.16982, section 2.2): rate and decay mean the same for both halves.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM = 0.95
RMS = 0.2
"""Root mean square of AdamW's steps in units of its rate, as Liu et al. found it."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def matrix_names(module: nn.Module) -> set[str]:
    """Names of the weights that Muon is for: of linear and convolutional layers between two hidden widths.

    Not embeddings and position tables, not a convolution that reads pixels, not a tower's last projection, whose rows
    are coordinates that others compare (Jordan et al.: embeddings and heads keep AdamW).
    """
    found = set()
    for name, layer in module.named_modules():
        inner = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.weight.shape[1] > 3)
        if inner and name.rpartition(".")[2] != "projection":
            found.add(f"{name}.weight")
    return found


def orthogonal(matrices: Float[Tensor, "k m n"]) -> Float[Tensor, "k m n"]:
    """Each matrix with its singular values moved near one (0.7 to 1.2), in five Newton-Schulz steps.

    In bfloat16 on a GPU, where it is many times faster and the values are rough anyway; in float32 elsewhere.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.transpose(1, 2)  # (k, m, m), m the shorter side
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).to(matrices.dtype)


class Muon(torch.optim.AdamW):
    """AdamW whose groups with ``muon=True`` are stepped by Muon instead.

    `found_inf`, where it is set (as gradient scalers do), is a number on the device: at 1 nothing changes.
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float, fused: bool = True
    ) -> None:
        super().__init__([{"muon": False, **g} for g in groups], lr=lr, betas=betas, eps=eps, fused=fused)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of both halves."""
        groups = self.param_groups
        skipped = getattr(self, "found_inf", None)
        try:
            self.param_groups = [g for g in groups if not g["muon"]]
            result = super().step(closure) if self.param_groups else None
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._step_matrices(group, skipped)
        return result

    def _step_matrices(self, group: dict[str, Any], skipped: Tensor | None) -> None:
        shapes: dict[tuple[int, int], list[Tensor]] = {}
        for p in group["params"]:
            if p.grad is not None:
                shapes.setdefault((p.shape[0], p[0].numel()), []).append(p)
        for shape, parameters in shapes.items():
            new = [self._moved(p, skipped) for p in parameters]
            step = orthogonal(torch.stack([u.reshape(shape) for u in new]))
            rate = group["lr"] * RMS * max(shape) ** 0.5
            for p, u in zip(parameters, step, strict=True):
                moved = p * (1 - group["lr"] * group["weight_decay"]) - rate * u.reshape(p.shape)
                p.copy_(moved if skipped is None else torch.where(skipped.to(torch.bool), p, moved))

    def _moved(self, p: Tensor, skipped: Tensor | None) -> Tensor:
        """The momentum after this gradient, looked at one step ahead (Nesterov)."""
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), device=p.device)
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].lerp(p.grad, 1 - MOMENTUM)
        went = torch.ones_like(state["step"])
        if skipped is not None:
            momentum = torch.where(skipped.to(torch.bool), state["momentum"], momentum)
            went = went - skipped.to(went.dtype).reshape(())
        state["step"] += went
        state["momentum"].copy_(momentum)
        return p.grad.lerp(momentum, MOMENTUM)
