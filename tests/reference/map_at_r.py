"""Rank of the first right answer and mAP@R the slow way: every order of the items that the scores leave open."""

import itertools

import numpy as np


def graded(scores: list[float], right: list[bool]) -> tuple[float, float]:
    """The mean over all orders that agree with the (exactly equal or clearly different) scores."""
    first, average = [], []
    total = sum(right)
    for order in itertools.permutations(range(len(scores))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        hits = [right[i] for i in order]
        first.append(hits.index(True) + 1)
        average.append(sum(sum(hits[: i + 1]) / (i + 1) for i in range(total) if hits[i]) / total)
    return float(np.mean(first)), float(np.mean(average))
