"""Numbers that are made of sums over a whole set, as BLEU, F1 and precision are, with their interval."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from diptych.evals.eval import Estimate
from diptych.evals.intervals import Interval, student_quantile, wilson
from diptych.evals.statistics import bootstrap_weights

FEW = 5
"""Below so many hits or misses, resampled sums are not to be trusted."""


class Resampling(NamedTuple):
    """How often clusters are drawn anew, from which seed; `name` tells the draws of one metric from another's."""

    samples: int = 1000
    seed: int = 0
    name: str = "sums"


def sums_estimate(
    counts: Float64[np.ndarray, "n k"],
    of: Callable[[Float64[np.ndarray, "s k"]], Float64[np.ndarray, " s"]],
    clusters: Int[np.ndarray, " n"],
    chance: float | None = None,
    how: Resampling = Resampling(),  # noqa: B008  (a constant)
    higher_is_better: bool = True,
) -> Estimate:
    """`of` the items' summed counts, a value within 0..1, with its interval; `n` counts the clusters that bear on it.

    Clusters (images) are resampled whole, and the interval is the draws' percentiles. Near 0 and 1, where resampling
    hardly meets the few that differ, it is Wilson's over as many items as have the spread that leaving out one cluster
    at a time shows (the jackknife's). Where the sums make no number (0 / 0: no answer was yes), the value is 0 and
    nothing is known of it: the interval is 0..1.
    """
    label = np.unique(clusters, return_inverse=True)[1]
    of_cluster = np.zeros((label.max() + 1, counts.shape[1]))
    np.add.at(of_cluster, label, counts)
    value = float(of(counts.sum(0, keepdims=True))[0])
    n = int((~np.isnan(of(of_cluster))).sum())  # a picture of which nothing was said tells nothing
    if np.isnan(value):
        return Estimate(value=0.0, low=0.0, high=1.0, chance=chance, n=n, higher_is_better=higher_is_better)
    low, high = _near_the_ends(value, of(of_cluster.sum(0) - of_cluster), n) or _percentiles(of_cluster, of, how)
    return Estimate(
        value=value, low=min(low, value), high=max(high, value), chance=chance, n=n, higher_is_better=higher_is_better
    )


def quotient(above: Float64[np.ndarray, " s"], below: Float64[np.ndarray, " s"]) -> Float64[np.ndarray, " s"]:
    """`above / below`, NaN where that is no number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _near_the_ends(value: float, left_out: Float64[np.ndarray, " m"], n: int) -> Interval | None:
    """Wilson's interval where fewer than FEW items, or all but so few, are hits; None elsewhere. `left_out`: the value
    without each cluster in turn (NaN where that one alone makes it)."""
    if np.isnan(left_out).any():
        return wilson(value, 1)
    m = len(left_out)
    spread = (m - 1) / m * float(((left_out - left_out.mean()) ** 2).sum())
    if spread < 1e-15 or n < 2:
        return wilson(value * n, n)
    effective = max(1.0, value * (1 - value) / spread)
    if min(value, 1 - value) * effective >= FEW:
        return None
    return wilson(value * effective, effective, critical=student_quantile(n - 1))


def _percentiles(of_cluster: Float64[np.ndarray, "m k"], of: Callable[..., np.ndarray], how: Resampling) -> Interval:
    blocks = bootstrap_weights(len(of_cluster), how.samples, how.seed, how.name)
    draws = np.concatenate([of(weights @ of_cluster) for weights in blocks])
    low, high = np.quantile(draws[~np.isnan(draws)], (0.025, 0.975))
    return Interval(float(low), float(high))
