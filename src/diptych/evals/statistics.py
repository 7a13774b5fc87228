"""How sure a number is: intervals over independent items, paired tests between two models, and the verdict in words.

What is resampled is always a *cluster*: everything that belongs to one image (its captions, its questions). Items of
one image rise and fall together, and an interval that takes them for independent is too narrow.

Resampling m clusters with replacement gives each a multinomial count. Clusters that bring equal (sum, count) are
interchangeable, so their counts add up to a multinomial over the *distinct* ones: the same distribution as the loop
of tests/reference/bootstrap.py, at a price that depends on how many distinct clusters there are, not on how many.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Shaped

from diptych.core.errors import EvalError
from diptych.core.seeds import numpy_generator
from diptych.evals.eval import Estimate

LEVEL = 0.95
FEW = 5
"""Below so many hits or misses, a resampled proportion is not to be trusted and Wilson's interval is taken."""

_CELLS = 1 << 22  # numbers held at once while resampling (32 MB)


class Interval(NamedTuple):
    """The two ends of an interval."""

    low: float
    high: float


def wilson(hits: float | int, n: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a proportion: never empty, also where all or none of `n` items are hits.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if n < 1:
        raise EvalError(f"an interval must rest on at least one item; got {n}. Evaluate more items.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return Interval(0.0 if hits <= 0 else max(0.0, centre - half), 1.0 if hits >= n else min(1.0, centre + half))


def bootstrap_mean(
    values: Shaped[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None = None,
    samples: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
    method: Literal["percentile", "bca"] = "percentile",
) -> Interval:
    """The bootstrap interval of the mean of `values`, resampling clusters (None: every value is its own).

    With one cluster, or where all clusters agree, resampling can show no spread: values within 0..1 then get Wilson's
    interval over clusters (no bounded value spreads more than a 0/1 one, so it is not too narrow); others are refused.
    BCa: Efron, "Better bootstrap confidence intervals", 1987.
    """
    values = _finite(values)
    sums, sizes = _cluster_sums(values, clusters)
    mean = float(values.sum() / values.size)
    if np.ptp(sums / sizes) <= 1e-12:
        if values.min() < 0 or values.max() > 1:
            raise EvalError(
                f"an interval must rest on values that differ between clusters, or that lie in 0..1; got "
                f"{len(sums)} clusters, each with mean {mean:g}. Evaluate more items."
            )
        return wilson(mean * len(sums), len(sums), level)
    distinct, multiplicity = np.unique(np.stack([sums, sizes], 1), axis=0, return_counts=True)
    draws = np.concatenate(
        [
            (weights @ distinct[:, 0]) / (weights @ distinct[:, 1])
            for weights in _resample(multiplicity, samples, seed, "mean")
        ]
    )
    tails = ((1 - level) / 2, (1 + level) / 2)
    if method == "bca":
        tails = _bca_tails(draws, mean, sums, sizes, tails)
    low, high = np.quantile(draws, tails)
    return Interval(float(min(low, mean)), float(max(high, mean)))


def bootstrap_median(
    values: Shaped[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None = None,
    samples: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """The percentile bootstrap interval of the median of `values` (of an even number: the middle of the two)."""
    values = _finite(values)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    labels = np.arange(values.size) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    member = labels[order]
    draws = []
    for weights in _resample(np.ones(labels.max() + 1, int), samples, seed, "median", width=values.size):
        reached = np.cumsum(weights[:, member], axis=1)  # (B, n): items at or below each value
        half = reached[:, -1:] / 2
        lower, upper = (reached >= half).argmax(1), (reached > half).argmax(1)
        draws.append((ordered[lower] + ordered[upper]) / 2)
    low, high = np.quantile(np.concatenate(draws), ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(low), float(high))


def mean_estimate(
    values: Shaped[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None = None,
    chance: float | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The mean of `values` with its interval; `n` counts clusters."""
    low, high = bootstrap_mean(values, clusters, samples, seed)
    n = int(values.size if clusters is None else np.unique(clusters).size)
    return Estimate(value=float(np.mean(values, dtype=float)), low=low, high=high, chance=chance, n=n)


def median_estimate(
    values: Shaped[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None = None,
    chance: float | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The median of `values` (ranks: lower is better) with its interval; `n` counts clusters."""
    low, high = bootstrap_median(values, clusters, samples, seed)
    n = int(values.size if clusters is None else np.unique(clusters).size)
    value = float(np.median(values))
    return Estimate(value=value, low=low, high=high, chance=chance, n=n, higher_is_better=False)


def proportion(hits: int, n: int, chance: float | None = None, samples: int = 1000, seed: int = 0) -> Estimate:
    """The share `hits / n` of independent items with its bootstrap interval, in O(samples) whatever `n`.

    The resampled number of hits is binomial, so it is drawn at once; with fewer than FEW hits or misses: Wilson.
    """
    p = hits / n if n else 0.0
    if min(hits, n - hits) < FEW:
        low, high = wilson(hits, n)
    else:
        draws = numpy_generator(seed, "bootstrap", "proportion").binomial(n, p, samples) / n
        low, high = (float(q) for q in np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)))
    return Estimate(value=p, low=low, high=high, chance=chance, n=n)


def share_estimate(
    hits: Shaped[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None = None,
    chance: float | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The share of `hits` (0 or 1 each): `proportion` where items are independent, else `mean_estimate`."""
    if clusters is None or np.unique(clusters).size == hits.size:
        return proportion(int(hits.sum()), int(hits.size), chance, samples, seed)
    return mean_estimate(hits, clusters, chance, samples, seed)


def stratified_mean(
    hits: Int[np.ndarray, " g"], sizes: Int[np.ndarray, " g"], chance: float | None, samples: int = 1000, seed: int = 0
) -> Estimate:
    """The mean over groups of `hits / sizes` (mean per-class recall), resampling items within their group.

    Resampling whole data could empty a small group; within groups none is lost. A group of few hits or misses (FEW)
    resamples to hardly any spread, as if it were known: then the groups' Wilson intervals are added up instead (MOVER:
    Zou and Donner, "Construction of confidence limits about effect measures", 2008).
    """
    rates = hits / sizes
    value, n = float(rates.mean()), int(sizes.sum())
    if np.minimum(hits, sizes - hits).min() < FEW:
        ends = np.array([wilson(int(h), int(s)) for h, s in zip(hits, sizes, strict=True)])  # (g, 2)
        below, above = np.sqrt(((ends - rates[:, None]) ** 2).sum(0)) / len(rates)
        low, high = max(0.0, value - float(below)), min(1.0, value + float(above))
    else:
        draws = numpy_generator(seed, "bootstrap", "stratified").binomial(sizes, rates, (samples, sizes.size)) / sizes
        low, high = (float(q) for q in np.quantile(draws.mean(1), ((1 - LEVEL) / 2, (1 + LEVEL) / 2)))
    return Estimate(value=value, low=min(low, value), high=max(high, value), chance=chance, n=n)


def bootstrap_weights(n: int, samples: int, seed: int, name: str) -> Iterator[Float64[np.ndarray, "s n"]]:
    """Blocks of resampled counts (B, n), `samples` rows in all: for statistics that are not a mean."""
    return _resample(np.ones(n, int), samples, seed, name)


@dataclass(frozen=True)
class PairedTest:
    """Model a against model b on the same items: `difference` = mean(a - b), its 95 % interval, and the sign-flip p.

    `n` counts independent clusters, `discordant` those on which the two differ at all.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    discordant: int

    def verdict(self, alpha: float = 0.05, higher_is_better: bool = True, p_value: float | None = None) -> str:
        """ "better", "worse" or "indistinguishable", of a against b; `p_value` replaces the own one (Holm's)."""
        p = self.p_value if p_value is None else p_value
        if p >= alpha or self.difference == 0:
            return "indistinguishable"
        return "better" if (self.difference > 0) == higher_is_better else "worse"


def paired_difference(
    a: Shaped[np.ndarray, " n"],
    b: Shaped[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Whether two models differ on the same items: bootstrap interval of the difference and sign-flip permutation p.

    Under "no difference" each cluster's summed difference might as well have the other sign. Clusters with equal
    magnitude are flipped together by one binomial draw. The p-value counts the observed labelling itself
    (Phipson and Smyth, 2010), so it is never 0.
    """
    difference = _finite(a) - _finite(b)
    sums, _ = _cluster_sums(difference, clusters)
    mean = float(difference.sum() / difference.size)
    discordant = int(np.count_nonzero(sums))
    if discordant == 0:
        return PairedTest(0.0, 0.0, 0.0, 1.0, len(sums), 0)
    size, count = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    flips = numpy_generator(seed, "sign_flip").binomial(count, 0.5, (samples, len(count)))
    flipped = np.abs((2 * flips - count) @ size)
    extreme = int((flipped >= abs(sums.sum()) * (1 - 1e-9)).sum())
    scale = max(1.0, float(np.abs(difference).max()))  # to 0..1, where bootstrap_mean knows what to do without spread
    low, high = (scale * (2 * x - 1) for x in bootstrap_mean((difference / scale + 1) / 2, clusters, samples, seed))
    return PairedTest(mean, low, high, (1 + extreme) / (1 + samples), len(sums), discordant)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values (1979): below alpha = that difference holds, whatever else was looked at."""
    adjusted, running = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=lambda k: p_values[k])):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def compare(
    a: Mapping[str, np.ndarray],
    b: Mapping[str, np.ndarray],
    clusters: Int[np.ndarray, " n"] | None = None,
    higher_is_better: Callable[[str], bool] = lambda name: True,
    alpha: float = 0.05,
) -> dict[str, tuple[PairedTest, str]]:
    """The paired test and the verdict of a against b for every metric that both have item values of, Holm-adjusted."""
    tests = {name: paired_difference(a[name], b[name], clusters) for name in a if name in b}
    adjusted = holm({name: t.p_value for name, t in tests.items()})
    return {name: (t, t.verdict(alpha, higher_is_better(name), adjusted[name])) for name, t in tests.items()}


def _finite(values: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise EvalError(
            f"an interval must rest on finite values; got {values.size} values, "
            f"{int((~np.isfinite(values)).sum())} of them not finite. Check the model's outputs."
        )
    return values


def _cluster_sums(
    values: Float64[np.ndarray, " n"], clusters: Int[np.ndarray, " n"] | None
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    if clusters is None:
        return values, np.ones_like(values)
    label = np.unique(clusters, return_inverse=True)[1]
    return np.bincount(label, weights=values), np.bincount(label).astype(float)


def _resample(
    multiplicity: Int[np.ndarray, " u"], samples: int, seed: int, name: str, width: int = 0
) -> Iterator[Float64[np.ndarray, "s u"]]:
    generator = numpy_generator(seed, "bootstrap", name)
    total = int(multiplicity.sum())
    rows = max(1, _CELLS // max(len(multiplicity), width))
    for start in range(0, samples, rows):
        yield generator.multinomial(total, multiplicity / total, size=min(rows, samples - start)).astype(float)


def _bca_tails(
    draws: Float64[np.ndarray, " s"],
    mean: float,
    sums: Float64[np.ndarray, " m"],
    sizes: Float64[np.ndarray, " m"],
    tails: tuple[float, float],
) -> tuple[float, float]:
    normal = NormalDist()
    below = float(((draws < mean).sum() + 0.5 * (draws == mean).sum()) / draws.size)
    bias = normal.inv_cdf(min(max(below, 1e-6), 1 - 1e-6))
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)  # the mean without each cluster in turn
    away = left_out.mean() - left_out
    spread = float((away**2).sum())
    acceleration = float((away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0

    def shifted(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        return normal.cdf(bias + z / (1 - acceleration * z))

    return shifted(tails[0]), shifted(tails[1])
