"""How queries with several right answers did: the rank of the first of them, and mean average precision at R.

Scores that tie are in no order. The first right answer's rank takes them as `ranking.Ties` says; mAP@R takes the mean
over all their orders, by the closed form for tied groups of McSherry and Najork, "Computing Information Retrieval
Performance Measures Efficiently in the Presence of Tied Scores" (2008).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from diptych.evals.ranking import TIE, Ties

_OF_A_TIE = {"half": 0.5, "optimistic": 0.0, "pessimistic": 1.0}


@dataclass(frozen=True)
class Graded:
    """By query: rank of the best right answer (0 if there is none), mAP@R, how many are right, and among how many."""

    rank: Float64[np.ndarray, " q"]
    map_at_r: Float64[np.ndarray, " q"]
    right: Float64[np.ndarray, " q"]
    gallery: Float64[np.ndarray, " q"]

    def of(self, queries: Int64[np.ndarray, " p"]) -> "Graded":
        """Some of the queries."""
        return Graded(**{f.name: getattr(self, f.name)[queries] for f in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence["Graded"]) -> "Graded":
        """Many as one."""
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


def grade(
    scores: Float[np.ndarray, "q g"], right: Bool[np.ndarray, "q g"], left_out: Bool[np.ndarray, "q g"], ties: Ties
) -> Graded:
    """From scores, which answers are right, and which stand out of the gallery altogether."""
    numbers = right.sum(1)
    sizes = scores.shape[1] - left_out.sum(1)
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    some = numbers > 0
    best = np.where(some[:, None], best, 0)
    slack = TIE * np.maximum(np.abs(best), 1)
    margin = np.where(right | left_out, -np.inf, scores - best)
    above = (margin > slack).sum(1) + _OF_A_TIE[ties] * (np.abs(margin) <= slack).sum(1)
    ranked = np.where(left_out, -np.inf, scores)
    order = np.argsort(-ranked, axis=1, kind="stable")
    sorted_scores, sorted_right = (np.take_along_axis(x, order, 1) for x in (ranked, right))
    precision = [
        _map_at_r(s[:n], r[:n], int(k)) if k else 0.0
        for s, r, n, k in zip(sorted_scores, sorted_right, sizes, numbers, strict=True)
    ]
    return Graded(np.where(some, 1.0 + above, 0.0), np.array(precision), numbers.astype(float), sizes.astype(float))


def chance_map_at_r(right: Float64[np.ndarray, " q"], gallery: int) -> float:
    """The mean of mAP@R over all orders of `gallery` items of which so many are right.

    1/R sum_i over the first R places of P(right at i) / i x (1 + how many of the i - 1 before are right then).
    """
    numbers, times = np.unique(right.astype(int), return_counts=True)
    return float(np.average([_in_any_order(int(r), gallery, 0, 0, int(r)) / r for r in numbers], weights=times))


def _map_at_r(scores: Float[np.ndarray, " g"], right: Bool[np.ndarray, " g"], total: int) -> float:
    """mAP@R of one sorted list: groups of tied items one after the other, until `total` places are full."""
    tied = np.abs(np.diff(scores)) <= TIE * np.maximum(np.abs(scores[:-1]), 1)
    starts = np.flatnonzero(np.concatenate([[True], ~tied]))
    ends = np.append(starts[1:], len(scores))
    found = np.concatenate([[0], np.cumsum(right)])
    value = 0.0
    for a, b in zip(starts.tolist(), ends.tolist(), strict=True):
        if a >= total:
            break
        value += _in_any_order(int(found[b] - found[a]), b - a, a, int(found[a]), total)
    return value / total


def _in_any_order(right: int, size: int, before: int, right_before: int, most: int) -> float:
    """What a group of `size` items in no order, `right` of them right, adds on average to the sum of the precisions at
    right answers, standing behind `before` items with `right_before` right ones; of the first `most` places only."""
    if not right or before >= most:
        return 0.0
    place = np.arange(1, min(size, most - before) + 1)
    earlier = (place - 1) * (right - 1) / max(1, size - 1)
    return float((right / size * (right_before + 1 + earlier) / (before + place)).sum())
