"""How unit vectors lie on the sphere: uniformity, nearest neighbours, spectrum; each with what random vectors show.

Everything is exact and made in chunks: memory grows with the number of vectors, never with its square. Intervals are
of the first order (each vector's influence on the number), which for these takes one pass where a bootstrap takes a
thousand.
"""

from math import lgamma
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from diptych.core.seeds import numpy_generator
from diptych.evals.intervals import Interval

Z = 1.959963984540054
"""The normal quantile of a 95 % interval."""

BINS = 200
"""Bins of the cosine from -1 to 1."""

_CELLS = 1 << 22

RankOf = Literal["singular_values", "variances"]
"""Effective rank = exp(entropy) of the shares of the singular values (Roy and Vetterli, EUSIPCO 2007; RankMe,
arXiv:2210.02885), or of their squares, the components' variances."""


class Neighbours(NamedTuple):
    """Of each vector among the others: the mean of exp(-2 ||x - y||^2), the nearest one's cosine and place."""

    kernel: Float64[np.ndarray, " n"]
    cosine: Float64[np.ndarray, " n"]
    nearest: Int64[np.ndarray, " n"]


class Spectrum(NamedTuple):
    """The shares of variance of the principal components, largest first, and each vector's square along them."""

    shares: Float64[np.ndarray, " d"]
    squares: Float64[np.ndarray, "n d"]


def neighbours(vectors: Float[Tensor, "n e"]) -> Neighbours:
    """Every vector against all others; needs two at least."""
    n = len(vectors)
    kernel, cosine, nearest = np.empty(n), np.empty(n), np.empty(n, np.int64)
    step = max(1, _CELLS // n)
    for start in range(0, n, step):
        rows = vectors[start : start + step] @ vectors.T  # (c, n)
        size, own = len(rows), torch.arange(start, start + len(rows))
        rows[torch.arange(size), own] = -torch.inf  # a vector is no neighbour of itself
        best, place = rows.max(1)
        part = slice(start, start + size)
        # ||x - y||^2 = 2 - 2 cos for unit vectors
        kernel[part] = torch.exp(4 * rows - 4).sum(1, dtype=torch.float64).numpy() / (n - 1)
        cosine[part], nearest[part] = best.double().numpy(), place.numpy()
    return Neighbours(kernel, cosine, nearest)


def uniformity(kernel: Float64[np.ndarray, " n"]) -> tuple[float, Interval]:
    """log of the mean of exp(-2 ||x - y||^2) over all pairs, and its interval, from the means of each vector's pairs.

    Source: Wang and Isola, arXiv:2005.10242, equation 2 with t = 2. The mean over pairs is a U-statistic, whose
    variance is to the first order 4 / n times the variance of those means (Hoeffding 1948).
    """
    mean = float(kernel.mean())
    half = Z * 2 * float(kernel.std(ddof=1)) / (np.sqrt(len(kernel)) * mean)
    value = float(np.log(mean))
    return value, Interval(value - half, value + half)


def random_uniformity(width: int) -> float:
    """The uniformity of vectors spread evenly over the sphere in `width` dimensions: the least that there is.

    E exp(4 cos) = 0F1(; width / 2; 4), from the density of the cosine, proportional to (1 - t^2)^((width - 3) / 2).
    """
    half = width / 2
    terms = [k * np.log(4) - lgamma(k + 1) - lgamma(half + k) + lgamma(half) for k in range(80)]
    return float(np.log(np.exp(terms).sum()) - 4)


def spectrum(vectors: Float[Tensor, "n e"], centred: bool = True) -> Spectrum:
    """The principal components of vectors, about their mean (`centred`) or about the origin."""
    x = vectors.double()
    if centred:
        x = x - x.mean(0)
    variance, axes = torch.linalg.eigh(x.T @ x / len(x))
    variance, axes = variance.flip(0).clamp_min(0), axes.flip(1)
    total = float(variance.sum())
    if total <= 1e-12:  # all vectors are the same one: it has one direction at most
        shares = np.zeros(len(variance))
        shares[0] = 1.0
        return Spectrum(shares, np.broadcast_to(shares, (len(x), len(variance))).copy())
    return Spectrum((variance / total).numpy(), ((x @ axes) ** 2 / total).numpy())


def effective_rank(found: Spectrum, of: RankOf) -> tuple[float, Interval]:
    """exp of the entropy of the components' shares, and its interval.

    The first-order influence of a vector is the derivative along its squares: of a function of the eigenvalues, which
    is smooth also where some of them are equal. Few vectors for their width bias it downwards: compare it with that of
    as many random ones.
    """
    power = 0.5 if of == "singular_values" else 1.0
    kept = found.shares > 1e-12
    raised = found.shares[kept] ** power
    total = raised.sum()
    p = raised / total
    entropy = float(-(p * np.log(p)).sum())
    # d entropy / d share_k = -(log p_k + entropy) * d(raised_k) / d share_k / total
    slope = -(np.log(p) + entropy) * power * found.shares[kept] ** (power - 1) / total
    value = float(np.exp(entropy))
    return value, _interval(value, value * ((found.squares[:, kept] - found.shares[kept]) @ slope))


def top_share(found: Spectrum, k: int) -> tuple[float, Interval]:
    """The share of variance in the first `k` components, and its interval."""
    value = float(found.shares[:k].sum())
    first, whole = found.squares[:, :k].sum(1), found.squares.sum(1)
    low, high = _interval(value, first - value * whole)
    return value, Interval(max(0.0, min(low, value)), min(1.0, max(high, value)))


def random_vectors(n: int, width: int, seed: int) -> Float[Tensor, "n e"]:
    """Vectors spread evenly over the sphere: what geometry is compared with."""
    x = numpy_generator(seed, "random_vectors").standard_normal((n, width))
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)).float()


def cosine_counts(
    images: Float[Tensor, "i e"], texts: Float[Tensor, "t e"], pairs: Int64[Tensor, "p 2"]
) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
    """How many cosines lie in each of BINS bins: of the pairs, and of all images and texts that are none."""
    every = np.zeros(BINS, np.int64)
    step = max(1, _CELLS // len(texts))
    for start in range(0, len(images), step):
        every += _binned(images[start : start + step] @ texts.T)
    mine = _binned((images[pairs[:, 0]] * texts[pairs[:, 1]]).sum(1))
    return mine, np.maximum(every - mine, 0)  # a cosine at a bin's edge may round to either side


def _binned(cosines: Tensor) -> Int64[np.ndarray, " b"]:
    place = ((cosines + 1) * (BINS / 2)).floor().long().clamp_(0, BINS - 1)
    return torch.bincount(place.flatten(), minlength=BINS).numpy()


def _interval(value: float, influence: Float64[np.ndarray, " n"]) -> Interval:
    half = Z * float(influence.std(ddof=1)) / float(np.sqrt(len(influence)))
    return Interval(value - half, value + half)
