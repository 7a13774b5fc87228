"""InfoNCE and the sigmoid loss over the matrix of all pairs, all of it at once, differentiable by torch."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus


def same_pairs(*ids: Tensor) -> Tensor:
    """Which pairs share one of their ids, (g, g); each is the same as itself."""
    return torch.stack([x[:, None] == x for x in ids]).any(0)


def info_nce(
    image: Tensor, text: Tensor, scale: Tensor, same: Tensor, duplicates: str, smoothing: float
) -> tuple[Tensor, Tensor]:
    """The means over images and over texts of the cross-entropy of finding one's partner."""
    logits = scale * image @ text.T
    found = [softmax_rows(x, same, duplicates, smoothing).mean() for x in (logits, logits.T)]
    return found[0], found[1]


def softmax_rows(logits: Tensor, same: Tensor, duplicates: str, smoothing: float) -> Tensor:
    """Cross-entropy of each row, whose own column is on the diagonal."""
    eye = torch.eye(len(logits), dtype=torch.bool)
    excluded = same & ~eye if duplicates == "mask" else torch.zeros_like(eye)
    true = same if duplicates == "positives" else eye
    target = logits.masked_fill(~true, 0).sum(1) / true.sum(1)
    mean = logits.masked_fill(excluded, 0).sum(1) / (~excluded).sum(1)
    log_sum = logits.masked_fill(excluded, -math.inf).logsumexp(1)
    return log_sum - (1 - smoothing) * target - smoothing * mean


def sigmoid(
    image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, same: Tensor, duplicates: str
) -> tuple[Tensor, Tensor]:
    """Of all yes-or-no questions the terms of the true ones and of the false ones, divided by the number of images."""
    logits = scale * image @ text.T + bias
    eye = torch.eye(len(logits), dtype=torch.bool)
    true = same if duplicates == "positives" else eye
    terms = softplus(torch.where(true, -logits, logits), threshold=50)
    if duplicates == "mask":
        terms = terms.masked_fill(same & ~eye, 0)
    positive = terms.masked_fill(~true, 0).sum() / len(logits)
    return positive, terms.sum() / len(logits) - positive
