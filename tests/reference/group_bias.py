"""Skew, NDKL, association and group gaps as the formulas stand: one place, one division, one permutation at a time."""

import itertools
import math

import numpy as np


def max_skew(ranked: list[int], k: int, desired: list[float]) -> float:
    """The largest ln(p(g) / p*(g)) among the first k of one ranking."""
    skews = []
    for g, wanted in enumerate(desired):
        if wanted == 0:
            continue
        found = ranked[:k].count(g) / k or 1 / k
        skews.append(math.log(found / wanted))
    return max(skews)


def ndkl(ranked: list[int], desired: list[float]) -> float:
    """The discounted divergence of every beginning of one ranking."""
    total = weights = 0.0
    for i in range(1, len(ranked) + 1):
        divergence = 0.0
        for g, wanted in enumerate(desired):
            share = ranked[:i].count(g) / i
            if share > 0:
                divergence += share * math.log(share / wanted)
        total += divergence / math.log2(i + 1)
        weights += 1 / math.log2(i + 1)
    return total / weights


def effect_size(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, ddof: int) -> float:
    """WEAT's d with cosines one by one."""

    def cosine(u: np.ndarray, v: np.ndarray) -> float:
        return float(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)))

    def s(w: np.ndarray) -> float:
        return float(np.mean([cosine(w, v) for v in a]) - np.mean([cosine(w, v) for v in b]))

    of_x, of_y = [s(w) for w in x], [s(w) for w in y]
    return float((np.mean(of_x) - np.mean(of_y)) / np.std([*of_x, *of_y], ddof=ddof))


def exact_p(s_x: np.ndarray, s_y: np.ndarray) -> float:
    """The share of all divisions with a difference at least as large."""
    both, observed = [*s_x, *s_y], np.mean(s_x) - np.mean(s_y)
    reached = []
    for chosen in itertools.combinations(range(len(both)), len(s_x)):
        x = [both[i] for i in chosen]
        y = [both[i] for i in range(len(both)) if i not in chosen]
        reached.append(np.mean(x) - np.mean(y) >= observed - 1e-12)
    return float(np.mean(reached))


def permuted_gaps(hits: np.ndarray, of: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """The gap between the best and the worst group, the groups shuffled among the items."""
    rng = np.random.default_rng(seed)
    gaps = []
    for _ in range(permutations):
        shuffled = rng.permutation(of)
        rates = [hits[shuffled == g].mean() for g in np.unique(of)]
        gaps.append(max(rates) - min(rates))
    return np.array(gaps)
