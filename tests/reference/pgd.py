"""PGD as a loop over images and steps, in 0..1."""

import torch
from torch import Tensor


def pgd(logits, image: Tensor, right: list[int], eps: float, steps: int, step: float, start: Tensor, loss: str):
    """(whether every point is right, whether the last is, the points): of one image (3 s s) in 0..1, eps in 0..1."""

    def values(x: Tensor) -> Tensor:
        return logits(255 * x[None])[0]

    points, states = [], []
    x = (image + eps * start).clamp(image - eps, image + eps).clamp(0, 1)
    for _ in range(steps):
        points.append(x)
        x = x.detach().requires_grad_()
        y = values(x)
        mine = [y[i] for i in right]
        if loss == "margin":
            up = max(y[i] for i in range(len(y)) if i not in right) - max(mine)
        else:
            up = -torch.log(sum(v.exp() for v in mine) / sum(v.exp() for v in y))
        gradient = torch.autograd.grad(up, x)[0]
        x = (x.detach() + step * eps * gradient.sign()).clamp(image - eps, image + eps).clamp(0, 1)
    points.append(x)
    states = [int(values(p).argmax()) in right for p in [image, *points]]
    return all(states), states[-1], points
