"""Mixture of experts, token by token and expert by expert."""

import torch
from torch import Tensor

from diptych.nn.experts import Experts


def experts(layer: Experts, x: Tensor) -> Tensor:
    """What `layer` must give of tokens (n, d)."""
    rows = []
    for token in x:
        logits = torch.stack([(token.float() * w).sum() for w in layer.router.weight.float()])
        p = logits.exp() / logits.exp().sum()
        left = [float(p[e].detach()) + float(layer.bias[e]) for e in range(len(p))]
        chosen = sorted(range(len(p)), key=lambda e: (-left[e], e))[: layer.per_token]
        total = sum(p[e] for e in chosen) if layer.per_token > 1 else 1.0
        rows.append(sum(layer.experts[e](token[None])[0] * (p[e] / total) for e in chosen))
    return torch.stack(rows)
