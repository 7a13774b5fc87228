"""Attacks: the smallest changes of pixels that make a model choose wrongly, found by following its gradient."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Logits = Callable[[Float[Tensor, "b 3 s s"]], Float[Tensor, "b t"]]
"""From pixels (0..255) to scores of t texts, differentiable."""

LEVELS = 255.0
"""Pixels are changed in 0..255, which the models take as they are: 0..1 times 255, without a rounding in between."""

Loss = Literal["cross_entropy", "margin"]


class Attack(NamedTuple):
    """How pixels are changed.

    eps     the largest change of any value, in 1/255
    steps   of the attack
    step    how far a step goes, as a share of eps: 2.5 / steps by Madry et al., 2018, section 5, so that a step may
            cross the ball more than once
    loss    "cross_entropy" of the right texts; "margin": best wrong less best right logit (Carlini and Wagner, 2017),
            which does not die out where the model is sure of itself
    """

    eps: float
    steps: int
    step: float
    loss: Loss


class Attacked(NamedTuple):
    """`right`: whether every point that was looked at, the image itself included, is still given a right text;
    `right_last`: whether the last one is. `images`: the point of the highest loss, 0..255."""

    right: Bool[Tensor, " b"]
    right_last: Bool[Tensor, " b"]
    images: Float[Tensor, "b 3 s s"]


def pgd(
    logits: Logits,
    images: Float[Tensor, "b 3 s s"],
    right: Bool[Tensor, "b t"],
    attack: Attack,
    start: Float[Tensor, "b 3 s s"],
) -> Attacked:
    """Projected gradient ascent in the l-infinity ball (Madry et al., 2018, arXiv:1706.06083), within 0..255.

    `start`: the random start, -1..1 of eps. Steps go along the gradient's sign; the last point is looked at too.
    """
    eps = attack.eps
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=LEVELS)
    with torch.no_grad():
        clean = logits(images)
    still = chosen_right(clean, right)
    worst, most = images.clone(), attack_loss(clean, right, attack.loss)
    x = torch.minimum(torch.maximum(images + eps * start, low), high)
    last = still
    for step in range(attack.steps + 1):
        x = x.detach().requires_grad_()
        found = logits(x)
        loss = attack_loss(found, right, attack.loss)
        last = chosen_right(found.detach(), right)
        still = still & last
        higher = loss.detach() > most
        most = torch.where(higher, loss.detach(), most)
        worst = torch.where(higher[:, None, None, None], x.detach(), worst)
        if step < attack.steps:
            gradient = torch.autograd.grad(loss.sum(), x)[0]
            x = torch.minimum(torch.maximum(x.detach() + attack.step * eps * gradient.sign(), low), high)
    return Attacked(still, last, worst)


def attack_loss(logits: Float[Tensor, "b t"], right: Bool[Tensor, "b t"], kind: Loss) -> Float[Tensor, " b"]:
    """What an attack raises, for each image."""
    wrong = logits.masked_fill(right, float("-inf"))
    mine = logits.masked_fill(~right, float("-inf"))
    if kind == "margin":
        return wrong.amax(1) - mine.amax(1)
    return logits.logsumexp(1) - mine.logsumexp(1)


def chosen_right(logits: Float[Tensor, "b t"], right: Bool[Tensor, "b t"]) -> Bool[Tensor, " b"]:
    """Whether the best text of each image is a right one."""
    return right.gather(1, logits.argmax(1, keepdim=True))[:, 0]
