"""Two models, or two groups of runs that differ in their seeds, on the same items: the test, and what it says in words.

A verdict says how sure it is, or what it would take to know: "indistinguishable at this n" alone leaves open whether
nothing is there or nobody has looked closely.
"""

from dataclasses import dataclass
from math import ceil, floor, log10
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int, Shaped

from diptych.evals.intervals import student_quantile, student_tail
from diptych.evals.statistics import PairedTest, paired_difference

POWER = 0.8
"""The chance of telling a difference that is there, for which numbers of items are given."""
FAR = 10_000_000
"""Beyond so many items there is no number to be given."""


@dataclass(frozen=True)
class SeedsTest(PairedTest):
    """A paired test of groups of runs that differ in their seeds. `seed_variance` is that of the difference which comes
    from the seeds alone, and stays whatever the number of items; 0 where each group is one run."""

    runs_a: int = 1
    runs_b: int = 1
    seed_variance: float = 0.0

    @property
    def seeds_counted(self) -> bool:
        """Whether the interval and the p-value account for the seeds: some group has more than one run."""
        return max(self.runs_a, self.runs_b) > 1


def seeds_difference(
    a: Shaped[np.ndarray, "k n"], b: Shaped[np.ndarray, "m n"], clusters: Int[np.ndarray, " n"] | None = None
) -> SeedsTest:
    """Runs of recipe a against runs of recipe b on the same items, where both the seeds and the items are samples.

    Crossed: each run answers every item. The variance of the difference of means adds up from the seeds (how runs
    scatter), and the items (how the items' mean differences scatter), less what both contain, the scatter of single
    answers; t with Satterthwaite's degrees of freedom. It is the variance that resampling seeds and items gives
    (tests/reference/crossed.py), which lacks 1 / k of the seeds' part and has the single answers' three times. One run
    borrows the scatter of the other group's seeds; with one run each it is `paired_difference`, without the seeds.

    Source: Owen, "The pigeonhole bootstrap", 2007; Satterthwaite, "An approximate distribution of estimates of variance
    components", 1946.
    """
    if len(a) == len(b) == 1:
        return SeedsTest(**vars(paired_difference(a[0], b[0], clusters)))
    alone = paired_difference(a.mean(0), b.mean(0), clusters, samples=1)  # for its deviation; signs are not flipped
    sums_a, sums_b, sizes = _sums(a, clusters), _sums(b, clusters), _sums(np.ones((1, a.shape[1])), clusters)[0]
    m, total = len(sizes), float(sizes.sum())
    items = alone.deviation**2 / m
    parts = [_scatter(sums, sizes) for sums in (sums_a, sums_b)]
    known = [p for p in parts if p is not None]
    (runs_a, single_a), (runs_b, single_b) = (known[0] if p is None else p for p in parts)
    runs, single = runs_a / len(a) + runs_b / len(b), single_a / len(a) + single_b / len(b)
    variance = max(items + runs - single, items, runs)
    freedom_a, freedom_b = (len(x) - 1 if len(x) > 1 else len(y) - 1 for x, y in ((a, b), (b, a)))
    weight = (runs_a / len(a)) ** 2 / freedom_a + (runs_b / len(b)) ** 2 / freedom_b + items**2 / max(1, m - 1)
    freedom = max(1.0, variance**2 / weight) if weight > 0 else 1.0
    half = student_quantile(freedom) * float(np.sqrt(variance))
    mean = float((sums_a.mean(0).sum() - sums_b.mean(0).sum()) / total)
    p_value = student_tail(mean / float(np.sqrt(variance)), freedom) if variance > 0 else float(mean == 0)
    return SeedsTest(
        mean,
        mean - half,
        mean + half,
        p_value,
        m,
        alone.discordant,
        alone.deviation,
        len(a),
        len(b),
        max(0.0, runs - single),
    )


def items_needed(test: PairedTest, difference: float, power: float = POWER, alpha: float = 0.05) -> int | None:
    """How many clusters (images) in all would tell such a difference with this power, if they are like those seen; None
    where no number would: the difference is 0, or the seeds alone scatter too much.

    n = ((z(1 - alpha/2) + z(power)) x deviation / difference)^2: Lachin, "Introduction to sample size determination and
    power analysis for clinical trials", 1981, eq. 1, of paired differences.
    """
    normal = NormalDist()
    aim = (abs(difference) / (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power))) ** 2  # the variance to be reached
    seeds = test.seed_variance if isinstance(test, SeedsTest) else 0.0
    return ceil(test.deviation**2 / (aim - seeds)) if aim > seeds else None


def verdict_words(
    test: PairedTest,
    unit: str = "images",
    percent: bool = True,
    higher_is_better: bool = True,
    adjusted: float | None = None,
    alpha: float = 0.05,
) -> str:
    """The test of a against b as a sentence: what is known of the difference, or how many more items would tell it.

    `adjusted`: Holm's p-value, by which the verdict is made; `percent`: the values are shares, shown in points. Where
    the family makes a test stricter, the number of items is that for the stricter level.
    """
    p = test.p_value if adjusted is None else adjusted
    verdict, scale = test.verdict(alpha, higher_is_better, p), 100 if percent else 1
    points = " points" if percent else ""
    digits = 1 if percent else 3
    size = _size(abs(test.difference) * scale, digits)
    if verdict != "indistinguishable":
        ends = (
            sorted((test.low * scale, test.high * scale))
            if test.difference > 0
            else (-test.high * scale, -test.low * scale)
        )
        holm = "" if adjusted is None else " (Holm)"
        shown = f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
        return f"{verdict} by {size}{points} {shown}, p {_p(p)}{holm}"
    runs = f", {test.runs_a} and {test.runs_b} seeds" if isinstance(test, SeedsTest) and test.seeds_counted else ""
    head = f"indistinguishable at this n ({test.n:,} {unit}{runs})"
    if test.difference == 0:
        least = student_quantile(max(1, test.n - 1)) + NormalDist().inv_cdf(POWER)
        told = least * test.deviation / np.sqrt(test.n) * scale
        return f"{head}: no difference seen; one of {_size(told, digits)}{points} would be told"
    strict = alpha * min(1.0, test.p_value / p) if p > 0 else alpha
    needed = items_needed(test, test.difference, POWER, strict)
    if needed is None:
        return f"{head}; more {unit} alone would not tell, more seeds might: they scatter by more than {size}{points}"
    if needed > FAR:
        return f"{head}; if there is a difference it is of {size}{points} or so, too small for any number of {unit}"
    return f"{head}; about {_rounded(max(1, needed - test.n)):,} more would tell a difference of {size}{points}"


def _sums(values: Shaped[np.ndarray, "k n"], clusters: Int[np.ndarray, " n"] | None) -> Float64[np.ndarray, "k m"]:
    if clusters is None:
        return np.asarray(values, dtype=np.float64)
    label = np.unique(clusters, return_inverse=True)[1]
    return np.stack([np.bincount(label, weights=row) for row in np.asarray(values, dtype=np.float64)])


def _scatter(sums: Float64[np.ndarray, "k m"], sizes: Float64[np.ndarray, " m"]) -> tuple[float, float] | None:
    """The variance of a run's mean between runs, and what of it single answers make; None of a single run."""
    k, m = sums.shape
    if k == 1:
        return None
    total = float(sizes.sum())
    means = sums.sum(1) / total
    rest = sums - means[:, None] * sizes  # (k, m): without the run's own level
    rest = rest - rest.mean(0)
    single = float((rest**2).sum()) / (k - 1) * m / max(1, m - 1) / total**2
    return float(means.var(ddof=1)), single


def _rounded(n: int) -> int:
    """To two figures: more would be false precision."""
    step = 10 ** max(0, floor(log10(n)) - 1)
    return round(n / step) * step


def _size(value: float, digits: int) -> str:
    """A difference with so many decimals, or with two figures where that would be 0."""
    return f"{value:.{digits}f}" if value >= 10.0**-digits else f"{value:.2g}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
