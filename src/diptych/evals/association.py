"""Association tests on embeddings: do two sets of targets lie differently towards two sets of attributes?

Source: Caliskan, Bryson and Narayanan, "Semantics derived automatically from language corpora contain human-like
biases", Science 2017 (WEAT); on images: Steed and Caliskan, arXiv:2010.15052 (iEAT).
"""

from math import comb
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from diptych.core.errors import EvalError
from diptych.core.seeds import numpy_generator
from diptych.evals.intervals import LEVEL

MOST_EXACT = 20_000
"""Up to so many ways to divide the targets, all of them are looked at."""

_CELLS = 1 << 22

Spread = Literal["sample", "population"]
"""Divide the squared deviations by n - 1 (the authors' code) or by n (some later packages): d differs by little."""


class Association(NamedTuple):
    """The effect size d with its 95 % interval, the one-sided p, over how many divisions, and whether all of them."""

    effect: float
    low: float
    high: float
    p_value: float
    divisions: int
    exact: bool


def associations(
    targets: Float[np.ndarray, "n e"], first: Float[np.ndarray, "a e"], second: Float[np.ndarray, "b e"]
) -> Float64[np.ndarray, " n"]:
    """s(w) = mean cosine of w to the first attributes - mean cosine to the second, of unit vectors."""
    return targets.astype(np.float64) @ (first.mean(0, dtype=np.float64) - second.mean(0, dtype=np.float64))


def effect_size(x: Float64[np.ndarray, " x"], y: Float64[np.ndarray, " y"], spread: Spread = "sample") -> float:
    """d = (mean s(x) - mean s(y)) / the standard deviation of s over both; 0 where s is the same everywhere."""
    both = np.concatenate([x, y])
    if np.ptp(both) <= 1e-9:
        return 0.0
    return float((x.mean() - y.mean()) / both.std(ddof=1 if spread == "sample" else 0))


def permutation_p(
    x: Float64[np.ndarray, " x"], y: Float64[np.ndarray, " y"], permutations: int, seed: int
) -> tuple[float, int, bool]:
    """How often a division of all targets into sets of these sizes has mean s(x) - mean s(y) at least as large.

    All divisions where there are at most MOST_EXACT, else so many random ones (the given one counts among them, so
    that p is never 0). Returns p, the number of divisions, and whether they were all.
    """
    both, k = np.concatenate([x, y]), len(x)
    observed = x.sum()
    slack = 1e-9 * max(1.0, float(np.abs(both).sum()))
    ways = comb(len(both), k)
    if ways <= MOST_EXACT:
        sums = _all_sums(both, k)
        return float((sums >= observed - slack).mean()), ways, True
    rng = numpy_generator(seed, "association")
    reached, rows = 0, max(1, _CELLS // len(both))
    for start in range(0, permutations, rows):
        keys = rng.random((min(rows, permutations - start), len(both)))
        sums = both[np.argpartition(keys, k - 1, axis=1)[:, :k]].sum(1)
        reached += int((sums >= observed - slack).sum())
    return (1 + reached) / (1 + permutations), permutations, False


def association_test(
    x: Float[np.ndarray, "x e"],
    y: Float[np.ndarray, "y e"],
    first: Float[np.ndarray, "a e"],
    second: Float[np.ndarray, "b e"],
    spread: Spread = "sample",
    permutations: int = 10_000,
    samples: int = 1000,
    seed: int = 0,
) -> Association:
    """Whether the targets `x` lie nearer than `y` to the attributes `first` rather than `second`; rows are unit.

    Interval: targets and attributes are resampled, each within its set, being but examples of what is meant.
    """
    for name, rows in (("target", x), ("target", y), ("attribute", first), ("attribute", second)):
        if len(rows) < 2:
            raise EvalError(
                f"a set of {name}s must hold at least 2 items; got {len(rows)}. Name more prompts, or a larger group."
            )
    s_x, s_y = associations(x, first, second), associations(y, first, second)
    effect = effect_size(s_x, s_y, spread)
    p, divisions, exact = permutation_p(s_x, s_y, permutations, seed)
    drawn = _resampled_effects(np.concatenate([x, y]), len(x), first, second, spread, samples, seed)
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Association(effect, min(float(low), effect), max(float(high), effect), p, divisions, exact)


def _resampled_effects(
    targets: Float[np.ndarray, "n e"],
    of_x: int,
    first: Float[np.ndarray, "a e"],
    second: Float[np.ndarray, "b e"],
    spread: Spread,
    samples: int,
    seed: int,
) -> Float64[np.ndarray, " s"]:
    rng = numpy_generator(seed, "bootstrap", "association")
    to_first, to_second = targets.astype(float) @ first.T.astype(float), targets.astype(float) @ second.T.astype(float)
    n, drawn = len(targets), []
    for size in _steps(samples, max(1, _CELLS // max(n, len(first), len(second)))):
        s = to_first @ _weights(rng, len(first), size).T - to_second @ _weights(rng, len(second), size).T  # (n, s)
        w_x, w_y = _weights(rng, of_x, size).T, _weights(rng, n - of_x, size).T
        mean_x, mean_y = (w_x * s[:of_x]).sum(0), (w_y * s[of_x:]).sum(0)
        w = np.concatenate([w_x * of_x, w_y * (n - of_x)]) / n  # shares of all targets
        mean = (w * s).sum(0)
        variance = (w * (s - mean) ** 2).sum(0) * (n / (n - 1) if spread == "sample" else 1)
        flat = variance <= 1e-18
        drawn.append(np.where(flat, 0.0, (mean_x - mean_y) / np.sqrt(np.where(flat, 1.0, variance))))
    return np.concatenate(drawn)


def _weights(rng: np.random.Generator, n: int, size: int) -> Float64[np.ndarray, "s n"]:
    return rng.multinomial(n, np.full(n, 1 / n), size=size) / n


def _steps(total: int, most: int) -> list[int]:
    return [min(most, total - start) for start in range(0, total, most)]


def _all_sums(values: Float64[np.ndarray, " n"], k: int) -> Float64[np.ndarray, " c"]:
    """The sum of every choice of `k` of the values."""
    sums: list[list[np.ndarray]] = [[np.zeros(1)], *([] for _ in range(k))]
    for value in values:  # by how many are chosen so far
        for taken in range(k, 0, -1):
            sums[taken] += [some + value for some in sums[taken - 1]]
    return np.concatenate(sums[k])
