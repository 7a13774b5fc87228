"""A codebook in loops: what `nn/quantizer.py` computes, one vector at a time."""

import math

import numpy as np
import torch
from torch import Tensor

from diptych.nn.quantizer import EPS


def quantize(z: Tensor, codebook: Tensor, beta: float, update: str, legacy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(vectors with the straight-through gradient, codes, loss a row) of z (b, n, d)."""
    vectors, codes, losses = [], [], []
    for row in z:
        terms = []
        for v in row:
            distances = [((v - e) ** 2).sum().item() for e in codebook]
            k = int(np.argmin(distances))
            e = codebook[k]
            codes.append(k)
            vectors.append(v + e.detach() - v.detach())
            commitment, own = ((v - e.detach()) ** 2).mean(), ((v.detach() - e) ** 2).mean()
            if update == "ema":
                terms.append(beta * commitment)
            else:
                terms.append(commitment + beta * own if legacy else own + beta * commitment)
        losses.append(torch.stack(terms).mean())
    return torch.stack(vectors).view(z.shape), torch.tensor(codes).view(z.shape[:2]), torch.stack(losses)


def moved(codebook: Tensor, count: Tensor, total: Tensor, z: Tensor, codes: Tensor, decay: float) -> list[Tensor]:
    """(codebook, counts, sums) after the moving average has taken in z (n, d) of these codes."""
    counts, sums = count.tolist(), [s.clone() for s in total]
    for k in range(len(codebook)):
        mine = [v for v, c in zip(z, codes.tolist(), strict=True) if c == k]
        counts[k] = decay * counts[k] + (1 - decay) * len(mine)
        sums[k] = decay * sums[k] + (1 - decay) * (torch.stack(mine).sum(0) if mine else 0 * sums[k])
    n, size = sum(counts), len(counts)
    smooth = [(c + EPS) / (n + size * EPS) * n for c in counts]
    return [torch.stack([s / c for s, c in zip(sums, smooth, strict=True)]), torch.tensor(counts), torch.stack(sums)]


def moved_on_the_sphere(codebook: Tensor, z: Tensor, codes: Tensor, decay: float) -> Tensor:
    """The same of unit vectors: a code that none has chosen stays."""
    found = []
    for k, e in enumerate(codebook):
        mine = [v for v, c in zip(z, codes.tolist(), strict=True) if c == k]
        mean = torch.stack(mine).sum(0) if mine else e
        new = decay * e + (1 - decay) * mean / mean.norm()
        found.append(new / new.norm())
    return torch.stack(found)


def kmeans(x: Tensor, count: int, rounds: int) -> Tensor:
    """Lloyd's algorithm from the first rows on."""
    centres = [x[i % len(x)] for i in range(count)]
    for _ in range(rounds):
        own = [int(np.argmin([((v - c) ** 2).sum().item() for c in centres])) for v in x]
        groups = [[v for v, k in zip(x, own, strict=True) if k == i] for i in range(count)]
        centres = [torch.stack(g).mean(0) if g else c for g, c in zip(groups, centres, strict=True)]
    return torch.stack(centres)


def perplexity(counts: Tensor) -> float:
    """exp(-sum p ln p)."""
    total = sum(counts.tolist())
    return math.exp(-sum(c / total * math.log(c / total) for c in counts.tolist() if c))
