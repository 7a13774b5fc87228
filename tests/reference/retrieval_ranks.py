"""Ranks the slow way: the whole score matrix, one query at a time, each copy of an image or caption on its own."""

import numpy as np


def ranks(
    scores: np.ndarray, hashes: list, captions: list[list[str]], tie: float = 1e-6, ties: str = "half"
) -> tuple[list, list]:
    """Image-to-text ranks (one an image) and text-to-image ranks (one a caption) from scores (images, all captions)."""
    owner = [i for i, texts in enumerate(captions) for _ in texts]
    text = [t for texts in captions for t in texts]
    n, m = scores.shape

    def matches(i: int, j: int) -> bool:
        return any(hashes[a] == hashes[i] and text[j] in captions[a] for a in range(n))

    right = np.array([[matches(i, j) for j in range(m)] for i in range(n)])
    i2t = [_rank(scores[i], right[i], tie, ties) for i in range(n)]
    t2i = [_rank(scores[:, j], right[:, j], tie, ties) for j in range(m)]
    assert len(owner) == m
    return i2t, t2i


def _rank(scores: np.ndarray, right: np.ndarray, tie: float, how: str) -> float:
    best = scores[right].max()
    above = ties = 0
    for score, is_right in zip(scores, right, strict=True):
        if is_right:
            continue
        if abs(score - best) <= tie * max(1.0, abs(best)):
            ties += 1
        elif score > best:
            above += 1
    return 1 + above + {"half": ties / 2, "optimistic": 0, "pessimistic": ties}[how]
