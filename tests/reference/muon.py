"""Muon, one matrix at a time and by the formulas of the papers."""

from torch import Tensor


def newton_schulz(g: Tensor) -> Tensor:
    """Jordan et al. 2024: five steps of the quintic iteration on the shorter side."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def muon_step(
    p: Tensor, grad: Tensor, momentum: Tensor, lr: float, weight_decay: float, beta: float = 0.95
) -> tuple[Tensor, Tensor]:
    """The weight and the momentum after a step (Liu et al. 2025, eq. 4: steps scaled by 0.2 sqrt(longer side))."""
    momentum = beta * momentum + (1 - beta) * grad
    ahead = (1 - beta) * grad + beta * momentum
    matrix = newton_schulz(ahead.reshape(p.shape[0], -1))
    step = matrix * 0.2 * max(matrix.shape) ** 0.5
    return p * (1 - lr * weight_decay) - lr * step.reshape(p.shape), momentum
