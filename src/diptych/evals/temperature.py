"""One number that makes scores honest probabilities: the scale under which the right classes are likeliest."""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

LOG_SCALES = (-10.0, 10.0)
"""Between e^-10, where next to nothing is told apart, and e^10, where everything is certain."""

_HALVINGS = 60
_CELLS = 1 << 23


def probabilities(scores: Float[Tensor, "n c"], scale: float) -> Float64[Tensor, "n c"]:
    """log softmax of the scores times the scale."""
    return (scores.double() * scale).log_softmax(1)


def fit_scale(scores: Float[Tensor, "n c"], truth: Int64[np.ndarray, " n"]) -> float:
    """The scale with the least negative log-likelihood (Guo et al., arXiv:1706.04599, 4.2, with T = 1 / scale).

    The loss is convex in the scale s, its slope being the mean of (sum_c p_c(s) z_c) - z_truth, which only rises: the
    root is found by halving log s between LOG_SCALES. Scores that tell nothing of these truths get the scale 0, under
    which all classes are equally likely; those that tell everything the largest.
    """
    low, high = LOG_SCALES
    target = torch.from_numpy(truth)[:, None]
    if _slope(scores, target, math.exp(low)) >= 0:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(scores, target, math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    return math.exp((low + high) / 2)


def _slope(scores: Tensor, target: Tensor, scale: float) -> float:
    total, step = 0.0, max(1, _CELLS // scores.shape[1])
    for start in range(0, len(scores), step):
        z = scores[start : start + step].double()
        expected = ((z * scale).softmax(1) * z).sum(1)
        total += float((expected - z.gather(1, target[start : start + step])[:, 0]).sum())
    return total
