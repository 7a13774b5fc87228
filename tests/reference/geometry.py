"""The shape of a set of vectors with the whole matrix of distances, and intervals by the plain bootstrap."""

import numpy as np


def kernel_means(x: np.ndarray) -> np.ndarray:
    """Of each row the mean of exp(-2 ||x - y||^2) over all others."""
    squared = ((x[:, None] - x[None]) ** 2).sum(2)
    kernel = np.exp(-2 * squared)
    np.fill_diagonal(kernel, 0)
    return kernel.sum(1) / (len(x) - 1)


def uniformity(x: np.ndarray) -> float:
    """log E exp(-2 ||x - y||^2) over the pairs i < j."""
    i, j = np.triu_indices(len(x), 1)
    return float(np.log(np.mean(np.exp(-2 * ((x[i] - x[j]) ** 2).sum(1)))))


def effective_rank(x: np.ndarray, power: int, centred: bool = True) -> float:
    """exp of the entropy of the normalised singular values (power 1) or their squares (power 2)."""
    x = x - x.mean(0) if centred else x
    values = np.linalg.svd(x, compute_uv=False) ** power
    p = values[values > 1e-9] / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def top_share(x: np.ndarray, k: int) -> float:
    """The share of variance of the first k principal components."""
    values = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    return float(values[:k].sum() / values.sum())


def bootstrap_sd(x: np.ndarray, statistic, samples: int, seed: int) -> float:
    """The standard deviation of a statistic over resamples of the rows."""
    rng = np.random.default_rng(seed)
    return float(np.std([statistic(x[rng.integers(0, len(x), len(x))]) for _ in range(samples)]))


def kernel_mean_of_resample(x: np.ndarray, counts: np.ndarray) -> float:
    """The weighted mean of the kernel over pairs of different rows, row i counted counts[i] times."""
    kernel = np.exp(-2 * ((x[:, None] - x[None]) ** 2).sum(2))
    np.fill_diagonal(kernel, 0)
    weights = counts[:, None] * counts[None]
    np.fill_diagonal(weights, 0)
    return float((weights * kernel).sum() / weights.sum())
