"""Means over groups of items (tests, relations), each of which counts alike however many items it has."""

import numpy as np
from jaxtyping import Float64, Int64

from diptych.evals.eval import Estimate
from diptych.evals.statistics import bootstrap_weights, score_interval


def macro_weights(groups: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """What each item counts, so that the mean of weighted items is the mean over groups: n / (groups x n of its)."""
    _, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(len(groups) / (len(sizes) * sizes[of]), dtype=np.float64)


def macro_estimate(
    values: Float64[np.ndarray, " n"],
    groups: Int64[np.ndarray, " n"],
    clusters: Int64[np.ndarray, " n"],
    chance: float | None,
    samples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The mean over groups of each group's mean, with its interval: clusters are resampled, groups stay.

    `values` lie in 0..1. A group that a resample leaves empty is left out of it. Near 0 and 1 resampling is too narrow:
    the interval also holds the groups' own score intervals, added up as of independent groups (MOVER: Zou and Donner,
    "Construction of confidence limits about effect measures", 2008).
    """
    value = float((macro_weights(groups) * values).mean())
    of_group, of_cluster = (np.unique(x, return_inverse=True)[1] for x in (groups, clusters))
    shape = (int(of_cluster.max()) + 1, int(of_group.max()) + 1)
    sums, sizes = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (of_cluster, of_group), values)
    np.add.at(sizes, (of_cluster, of_group), 1.0)
    draws = []
    for weights in bootstrap_weights(shape[0], samples, seed, "macro"):
        total, count = weights @ sums, weights @ sizes  # (B, groups)
        means = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        draws.append(means.sum(1) / np.maximum((count > 0).sum(1), 1))
    found = np.concatenate(draws)
    low, high = (float(q) for q in np.quantile(found, (0.025, 0.975)))
    ends = np.array([score_interval(values[rows], clusters[rows]) for rows in _members(of_group)])  # (groups, 2)
    means = np.array([values[rows].mean() for rows in _members(of_group)])
    below, above = np.sqrt(((ends - means[:, None]) ** 2).sum(0)) / len(means)
    low, high = min(low, max(0.0, value - float(below))), max(high, min(1.0, value + float(above)))
    return Estimate(value=value, low=min(low, value), high=max(high, value), chance=chance, n=shape[0])


def _members(groups: Int64[np.ndarray, " n"]) -> list[Int64[np.ndarray, " m"]]:
    return [np.flatnonzero(groups == g) for g in range(int(groups.max()) + 1)]
