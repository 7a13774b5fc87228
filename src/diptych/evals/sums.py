"""Numbers that are made of sums over a whole set, as BLEU, F1 and precision are, with their interval."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from diptych.evals.eval import Estimate
from diptych.evals.statistics import Interval, bootstrap_weights, wilson

Sums = Float64[np.ndarray, "s k"]


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
    """`of` the items' summed counts, a value within 0..1, with its percentile interval; `n` counts clusters.

    Clusters (images) are resampled whole. Where no draw differs, the interval is Wilson's over clusters; and where the
    sums make no number (0 / 0: no answer was yes), the value is 0 and nothing is known of it: the interval is 0..1.
    """
    label = np.unique(clusters, return_inverse=True)[1]
    of_cluster = np.zeros((label.max() + 1, counts.shape[1]))
    np.add.at(of_cluster, label, counts)
    n = len(of_cluster)
    value = float(of(counts.sum(0, keepdims=True))[0])
    if np.isnan(value):
        return Estimate(value=0.0, low=0.0, high=1.0, chance=chance, n=n, higher_is_better=higher_is_better)
    draws = np.concatenate([of(w @ of_cluster) for w in bootstrap_weights(n, how.samples, how.seed, how.name)])
    low, high = _ends(draws[~np.isnan(draws)], value, n)
    return Estimate(
        value=value,
        low=min(low, value),
        high=max(high, value),
        chance=chance,
        n=n,
        higher_is_better=higher_is_better,
    )


def quotient(above: Float64[np.ndarray, " s"], below: Float64[np.ndarray, " s"]) -> Float64[np.ndarray, " s"]:
    """`above / below`, NaN where that is no number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _ends(draws: Float64[np.ndarray, " s"], value: float, n: int) -> Interval:
    low, high = (float(q) for q in np.quantile(draws, (0.025, 0.975)))
    return wilson(value * n, n) if high - low < 1e-12 else Interval(low, high)
