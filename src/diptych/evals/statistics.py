"""How sure a number is: intervals over independent items, paired tests between two models, and the verdict in words.

What is resampled is always a *cluster*: everything that belongs to one image (its captions, its questions). Items of
one image rise and fall together, and an interval that takes them for independent is too narrow.

Means of values within 0..1 have Wilson's score interval over as many independent items as their spread amounts to
(`score_interval`): the bootstrap's is too narrow near 0 and 1 and with few clusters (at p = 0.05 and 50 clusters it
holds the truth 86 times in 100). What is no such mean is resampled.

Resampling m clusters with replacement gives each a multinomial count. Clusters that bring equal (sum, count) are
interchangeable, so their counts add up to a multinomial over the *distinct* ones: the same distribution as the loop
of tests/reference/bootstrap.py, at a price that depends on how many distinct clusters there are, not on how many.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int, Shaped

from diptych.core.errors import EvalError
from diptych.core.seeds import numpy_generator
from diptych.evals.eval import Estimate
from diptych.evals.intervals import LEVEL, Interval, student_quantile, wilson

PRIOR_CLUSTERS = 0.5
"""So many clusters are held to be all alike within before any is seen: a few hits cannot show how alike they are."""

_CELLS = 1 << 22  # numbers held at once while resampling (32 MB)


def score_interval(
    values: Shaped[np.ndarray, " n"], clusters: Int[np.ndarray, " n"] | None = None, level: float = LEVEL
) -> Interval:
    """The interval of the mean of `values` within 0..1: Wilson's, over n / d items, d being the design effect (how
    many times wider the mean scatters over clusters than that of n independent hits), with Student's quantile.

    Source: Kish, "Survey sampling", 1965; Korn and Graubard, "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data", 1998. With few clusters that have any hit (or any miss) d is
    known badly, and is drawn towards that of clusters which are all alike within (PRIOR_CLUSTERS).
    """
    values = _finite(values)
    sums, sizes = _cluster_sums(values, clusters)
    m, n, mean = len(sums), values.size, float(values.mean())
    alike = float(sizes @ sizes) / n
    scatter, spread = _spread(sums, sizes, mean), mean * (1 - mean) / n
    floor = 1.0 if np.isin(values, (0.0, 1.0)).all() else 0.0
    known = min(int((sums > 1e-12).sum()), int((sums < sizes - 1e-12).sum())) if m > 1 and spread > 1e-15 else 0
    effect = min(max(scatter / spread, floor), alike) if known else alike
    effect = (known * effect + PRIOR_CLUSTERS * alike) / (known + PRIOR_CLUSTERS)
    items = max(1.0, n / effect)
    return wilson(mean * items, items, level, student_quantile(max(1, m - 1), level))


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
    tails = ((1 - level) / 2, (1 + level) / 2)
    if labels.max() + 1 == values.size:
        lower, upper = _resampled_middle(values.size, samples, seed)
        low, high = np.quantile((ordered[lower] + ordered[upper]) / 2, tails)
        return Interval(float(low), float(high))
    member = labels[order]
    draws = []
    for weights in _resample(np.ones(labels.max() + 1, int), samples, seed, "median", width=values.size):
        reached = np.cumsum(weights[:, member], axis=1)  # (B, n): items at or below each value
        half = reached[:, -1:] / 2
        lower, upper = (reached >= half).argmax(1), (reached > half).argmax(1)
        draws.append((ordered[lower] + ordered[upper]) / 2)
    low, high = np.quantile(np.concatenate(draws), tails)
    return Interval(float(low), float(high))


def mean_estimate(
    values: Shaped[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"] | None = None,
    chance: float | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The mean of `values` with its interval; `n` counts clusters. Values outside 0..1 are resampled."""
    bounded = values.size > 0 and np.min(values) >= 0 and np.max(values) <= 1
    low, high = score_interval(values, clusters) if bounded else bootstrap_mean(values, clusters, samples, seed)
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
    """The share `hits / n` of independent items with Wilson's interval: nothing is drawn, so that `samples` and `seed`,
    which every estimate takes, change nothing."""
    low, high = wilson(hits, n)
    return Estimate(value=hits / n, low=low, high=high, chance=chance, n=n)


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
    """The mean over groups of `hits / sizes` (mean per-class recall): Wilson's interval over as many items as its
    spread within the groups amounts to (as `score_interval`; Korn and Graubard, 1998). Nothing is drawn.

    A small group that is all right or all wrong seems to have no spread at all; each group's is therefore taken at its
    rate with one more item in it that is as the mean of all groups.
    """
    rates = hits / sizes
    value, n = float(rates.mean()), int(sizes.sum())
    smoothed = (hits + value) / (sizes + 1)
    spread = float((smoothed * (1 - smoothed) / sizes).sum()) / len(sizes) ** 2
    equal = len(sizes) ** 2 / float((1 / sizes).sum())  # items, where all groups have one rate
    items = max(1.0, value * (1 - value) / spread if spread > 0 else equal)
    low, high = wilson(value * items, items)
    return Estimate(value=value, low=min(low, value), high=max(high, value), chance=chance, n=n)


def bootstrap_weights(n: int, samples: int, seed: int, name: str) -> Iterator[Float64[np.ndarray, "s n"]]:
    """Blocks of resampled counts (B, n), `samples` rows in all: for statistics that are not a mean."""
    return _resample(np.ones(n, int), samples, seed, name)


@dataclass(frozen=True)
class PairedTest:
    """Model a against model b on the same items: `difference` = mean(a - b), its 95 % interval, and the sign-flip p.

    `n` counts independent clusters, `discordant` those on which the two differ at all; `deviation` is that of a
    cluster, so that the difference's standard error is deviation / sqrt(n).
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    discordant: int
    deviation: float = 0.0

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
    """Whether two models differ on the same items: interval of the mean difference and sign-flip permutation p.

    Under "no difference" each cluster's summed difference might as well have the other sign. Clusters with equal
    magnitude are flipped together by one binomial draw. The p-value counts the observed labelling itself
    (Phipson and Smyth, 2010), so it is never 0. The interval is Student's with two more clusters (`_paired_interval`).
    """
    a, b = _finite(a), _finite(b)
    difference = a - b
    sums, sizes = _cluster_sums(difference, clusters)
    sums = np.where(np.abs(sums) < 1e-12, 0.0, sums)
    mean = float(difference.sum() / difference.size)
    both = np.concatenate([a, b])
    bounded = both.min() >= 0 and both.max() <= 1
    low, high, deviation = _paired_interval(sums, sizes, 1.0 if bounded else float(np.ptp(both)))
    if bounded:
        low, high = max(low, -1.0), min(high, 1.0)
    discordant = int(np.count_nonzero(sums))
    p_value = 1.0
    if discordant:
        size, count = np.unique(np.abs(sums[sums != 0]), return_counts=True)
        flips = numpy_generator(seed, "sign_flip").binomial(count, 0.5, (samples, len(count)))
        flipped = np.abs((2 * flips - count) @ size)
        extreme = int((flipped >= abs(sums.sum()) * (1 - 1e-9)).sum())
        p_value = (1 + extreme) / (1 + samples)
    return PairedTest(mean, min(low, mean), max(high, mean), p_value, len(sums), discordant, deviation)


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


def _spread(sums: Float64[np.ndarray, " m"], sizes: Float64[np.ndarray, " m"], mean: float) -> float:
    """The variance of a ratio of sums over m clusters (linearised: Cochran, "Sampling techniques", eq. 6.13)."""
    rest = sums - mean * sizes
    return float(rest @ rest) * len(sums) / max(1, len(sums) - 1) / float(sizes.sum()) ** 2


def _paired_interval(
    sums: Float64[np.ndarray, " m"], sizes: Float64[np.ndarray, " m"], most: float
) -> tuple[float, float, float]:
    """The interval of the mean of paired differences, and the deviation of a cluster: with half a cluster more that
    speaks for each model, as strongly as those that speak at all do, and one on which they agree. Without these, two
    models that differ on a handful of items would seem to differ by a known amount, or not at all.

    Source: Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005, here for
    any differences, with Student's quantile. `most`: the largest difference there can be, for where none is seen.
    """
    speaking = sums[sums != 0]
    strength = float(np.sqrt(np.mean(speaking**2))) if len(speaking) else most * float(sizes.mean())
    weights = np.concatenate([np.ones(len(sums)), [0.5, 0.5, 1.0]])
    more = np.concatenate([sums, [strength, -strength, 0.0]])
    size = np.concatenate([sizes, np.full(3, sizes.mean())])
    clusters, total = len(sums) + 2, float(weights @ size)
    centre = float(weights @ more) / total
    deviation = clusters * float(np.sqrt(weights @ (more - centre * size) ** 2 / (clusters - 1))) / total
    half = student_quantile(max(1, len(sums) - 1)) * deviation / float(np.sqrt(clusters))
    return centre - half, centre + half, deviation


def _resample(
    multiplicity: Int[np.ndarray, " u"], samples: int, seed: int, name: str, width: int = 0
) -> Iterator[Float64[np.ndarray, "s u"]]:
    generator = numpy_generator(seed, "bootstrap", name)
    total = int(multiplicity.sum())
    rows = max(1, _CELLS // max(len(multiplicity), width))
    for start in range(0, samples, rows):
        yield generator.multinomial(total, multiplicity / total, size=min(rows, samples - start)).astype(float)


def _resampled_middle(n: int, samples: int, seed: int) -> tuple[Int[np.ndarray, " s"], Int[np.ndarray, " s"]]:
    """The places of the two middle ones (of an odd number: of the middle one, twice) of n independent items resampled.

    A resample is n uniform draws, whose k-th smallest is Beta(k, n - k + 1): it is drawn at once, whatever n. The next
    one is the least of the n - k draws that are left.
    """
    generator = numpy_generator(seed, "bootstrap", "middle")
    k = (n + 1) // 2
    first = generator.beta(k, n - k + 1, samples)
    second = first if n % 2 else first + (1 - first) * (1 - generator.random(samples) ** (1 / (n - k)))
    lower, upper = (np.minimum((n * x).astype(np.int64), n - 1) for x in (first, second))
    return lower, upper


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
