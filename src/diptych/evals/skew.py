"""Are groups over-represented among the images that a query finds? MaxSkew@k and NDKL of rankings, and their nulls.

Source: Geyik, Ambler and Kenthapadi, "Fairness-aware ranking in search and recommendation systems", KDD 2019, as used
on image-text models by Berg et al., arXiv:2203.11933.

Both grow with noise alone (the largest of several deviations; a divergence is never negative). So a number has a
*null* beside it: the groups' names dealt out anew among the images, which keeps how often each occurs.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from diptych.core.seeds import numpy_generator
from diptych.evals.eval import Estimate
from diptych.evals.intervals import LEVEL

Desired = Literal["population", "uniform"]
"""The distribution D* that a ranking is held against: that of the images searched (demographic parity), or every group
alike (equal opportunity)."""


class RankedGroups(NamedTuple):
    """MaxSkew@k and NDKL of each query's ranking (q,), and which group was the most over-represented (q,)."""

    max_skew: Float64[np.ndarray, " q"]
    ndkl: Float64[np.ndarray, " q"]
    most: Int64[np.ndarray, " q"]


class SkewTest(NamedTuple):
    """The mean over the queries with interval and chance level, and the share of permutations that reach it."""

    estimate: Estimate
    p_value: float


def desired_distribution(of: Int64[np.ndarray, " n"], groups: int, desired: Desired) -> Float64[np.ndarray, " g"]:
    """D*, of the groups of all images that are searched."""
    if desired == "uniform":
        return np.full(groups, 1 / groups)
    return np.bincount(of, minlength=groups) / len(of)


def rank_images(scores: Shaped[np.ndarray, "n q"], seed: int) -> Int64[np.ndarray, "q n"]:
    """The images of each query, best first. Ties are in random order: the dataset's own order may be by group."""
    shuffled = numpy_generator(seed, "skew_ties").permutation(len(scores))
    return shuffled[np.argsort(-scores[shuffled].T, axis=1, kind="stable")]


def skew_at_k(
    ranked: Int64[np.ndarray, "q d"], k: int, desired: Float64[np.ndarray, " g"]
) -> Float64[np.ndarray, "q g"]:
    """ln(p(g) / p*(g)) of each group among the first `k`; where a group is absent, p(g) is 1/k. Groups with p* = 0
    (there are none of them to be found) count for nothing: -inf."""
    top = ranked[:, :k]
    share = np.stack([(top == g).mean(1) for g in range(len(desired))], 1)
    share[share == 0] = 1 / top.shape[1]
    with np.errstate(divide="ignore"):
        return np.where(desired > 0, np.log(share / np.where(desired > 0, desired, 1)), -np.inf)


def normalised_discounted_kl(
    ranked: Int64[np.ndarray, "q d"], desired: Float64[np.ndarray, " g"]
) -> Float64[np.ndarray, " q"]:
    """NDKL = (1/Z) sum_i KL(D_i || D*) / log2(i + 1), D_i the groups among the first i, Z = sum_i 1 / log2(i + 1), in
    nats, over the places of `ranked`. 0: every beginning of the ranking is as D* says."""
    place = np.arange(1, ranked.shape[1] + 1)
    divergence = np.zeros(ranked.shape)
    for g, wanted in enumerate(desired):
        share = np.cumsum(ranked == g, axis=1) / place
        there = share > 0
        divergence[there] += share[there] * np.log(share[there] / wanted)
    discount = 1 / np.log2(place + 1)
    return np.maximum(0.0, divergence @ discount / discount.sum())


def ranked_groups(ranked: Int64[np.ndarray, "q d"], k: int, desired: Float64[np.ndarray, " g"]) -> RankedGroups:
    """Both measures of rankings that are given as the group of each place, the most over-represented group too."""
    skew = skew_at_k(ranked, k, desired)
    most = skew.max(1)
    assert (most >= -1e-9).all(), "two distributions over the same groups: one is at least as large somewhere"
    return RankedGroups(np.maximum(0.0, most), normalised_discounted_kl(ranked, desired), skew.argmax(1))


def skew_tests(
    order: Int64[np.ndarray, "q n"],
    of: Int64[np.ndarray, " n"],
    k: int,
    depth: int,
    desired: Desired,
    permutations: int,
    samples: int,
    seed: int,
) -> dict[str, SkewTest]:
    """Both measures, averaged over the queries: "max_skew" and "ndkl".

    Null: the groups permuted among the images, the same way for all queries. Interval: images resampled, rankings and
    D* with them; a resample is noisier than the data and so its measures larger, hence the interval is the resamples'
    spread about their mean, laid about the value.
    """
    groups = int(of.max()) + 1
    rng = numpy_generator(seed, "skew")

    def measures(ranked: np.ndarray, images: np.ndarray) -> list[float]:
        found = ranked_groups(ranked, k, desired_distribution(images, groups, desired))
        return [float(found.max_skew.mean()), float(found.ndkl.mean())]

    value = measures(of[order[:, :depth]], of)
    null = np.array([measures((p := rng.permutation(of))[order[:, :depth]], p) for _ in range(permutations)])
    drawn = []
    for _ in range(samples):
        copies = np.bincount(rng.integers(0, len(of), len(of)), minlength=len(of))
        ranked = np.stack([_resampled(row, copies, of, depth) for row in order])
        drawn.append(measures(ranked, np.repeat(of, copies)))
    spread = np.array(drawn) - np.mean(drawn, axis=0)
    ends = np.quantile(spread, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    return {
        name: SkewTest(
            Estimate(
                value=value[i],
                low=max(0.0, value[i] + min(0.0, float(ends[0, i]))),
                high=value[i] + max(0.0, float(ends[1, i])),
                chance=float(null[:, i].mean()),
                n=len(of),
                higher_is_better=False,
            ),
            float((1 + (null[:, i] >= value[i] * (1 - 1e-9)).sum()) / (1 + permutations)),
        )
        for i, name in enumerate(("max_skew", "ndkl"))
    }


def _resampled(
    row: Int64[np.ndarray, " n"], copies: Int64[np.ndarray, " n"], of: Int64[np.ndarray, " n"], depth: int
) -> Int64[np.ndarray, " d"]:
    """The groups of a ranking in which each image stands as often as it was drawn."""
    times = copies[row]
    stop = int(np.searchsorted(np.cumsum(times), depth)) + 1
    return np.repeat(of[row[:stop]], times[:stop])[:depth]
