"""How many samples one way of training needs to reach what another has reached, and how sure that is."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from diptych.core.seeds import numpy_generator


class Factor(NamedTuple):
    """How many times fewer samples: 1 is as many, and 0 stands for a level that is never reached.

    at_least  whether the level was reached before the first point, so that the factor may be larger
    """

    value: float
    low: float
    high: float
    at_least: bool


def samples_to_reach(samples: Float64[ndarray, " p"], curve: Float64[ndarray, " p"], level: float) -> float:
    """Where `curve` first reaches `level`, between its points by the logarithm of the samples; infinity: never."""
    reached = np.flatnonzero(curve >= level)
    if not len(reached):
        return float("inf")
    i = int(reached[0])
    if i == 0:
        return float(samples[0])
    share = (level - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(np.exp(np.log(samples[i - 1]) + share * (np.log(samples[i]) - np.log(samples[i - 1]))))


def factor(
    samples: Float64[ndarray, " p"],
    faster: Bool[ndarray, "seeds p n"],
    slower: Bool[ndarray, "seeds p n"],
    draws: int = 1000,
    seed: int = 0,
) -> Factor:
    """The samples that `slower` was given over those that `faster` needs to be as good: hits (seeds, points, items).

    The interval is a percentile bootstrap of 95 % that draws items, the same for both, and the seeds of each.
    """
    value, at_least = _factor(samples, faster.mean((0, 2)), slower.mean((0, 2)))
    generator = numpy_generator(seed, "bootstrap", "factor")
    found = []
    for _ in range(draws):
        items = generator.integers(0, faster.shape[2], faster.shape[2])
        curves = []
        for hits in (faster, slower):
            weights = np.bincount(generator.integers(0, len(hits), len(hits)), minlength=len(hits)) / len(hits)
            curves.append(weights @ hits[:, :, items].mean(2))
        found.append(_factor(samples, curves[0], curves[1])[0])
    low, high = np.quantile(found, (0.025, 0.975))
    return Factor(value, float(min(low, value)), float(max(high, value)), at_least)


def _factor(samples: Float64[ndarray, " p"], faster: ndarray, slower: ndarray) -> tuple[float, bool]:
    needed = samples_to_reach(samples, faster, float(slower[-1]))
    return float(samples[-1] / needed), bool(needed == samples[0])
