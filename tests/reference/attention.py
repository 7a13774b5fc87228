"""Attention one query at a time, in plain loops over batch, heads and queries. Differentiable."""

import torch
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(width)) v over the allowed keys only; a query without any gets zeros. All (b, n, s, k)."""
    rows = []
    for b in range(q.shape[0]):
        for n in range(q.shape[1]):
            for i in range(q.shape[2]):
                seen = [j for j in range(k.shape[2]) if allowed is None or bool(allowed[b, i, j])]
                if not seen:
                    rows.append(torch.zeros(v.shape[-1], dtype=v.dtype))
                    continue
                scores = (k[b, n, seen] @ q[b, n, i]) / q.shape[-1] ** 0.5
                weights = (scores - scores.max()).exp()
                rows.append((weights / weights.sum()) @ v[b, n, seen])
    return torch.stack(rows).view(*q.shape[:-1], v.shape[-1])


def self_attention(x: Tensor, weights: dict[str, Tensor], prefix: str, heads: int, allowed: Tensor | None) -> Tensor:
    """Multi-head self-attention with the weights under `prefix` (q_proj, k_proj, v_proj, out_proj)."""

    def project(name: str, y: Tensor) -> Tensor:
        return y @ weights[f"{prefix}{name}.weight"].T + weights[f"{prefix}{name}.bias"]

    def split(y: Tensor) -> Tensor:
        return y.view(*y.shape[:2], heads, -1).transpose(1, 2)

    out = attend(split(project("q_proj", x)), split(project("k_proj", x)), split(project("v_proj", x)), allowed)
    return project("out_proj", out.transpose(1, 2).reshape(x.shape))
