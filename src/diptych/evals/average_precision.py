"""Average precision of a ranking of images, plainly, resampled, and of one drawn at random."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Shaped

Interpolation = Literal["none", "11_point"]


def average_precision(
    scores: Shaped[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    weights: Float64[np.ndarray, "s n"] | None = None,
    interpolation: Interpolation = "none",
) -> Float64[np.ndarray, " s"]:
    """The average precision of images ranked by score, for each row of `weights` (how often each image is there; None:
    one row, each once). NaN where no positive image is there.

    "none": the mean over positives of the precision at their place (scikit-learn; Manning et al., 2008, ch. 8); equal
    scores are one place. "11_point": the mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or a
    higher one (PASCAL VOC before 2010; Everingham et al., 2010, eq. 1-2).
    """
    given = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True).nonzero()[0]  # where each group of equal scores ends
    w = given[:, order]
    here = np.cumsum(w, axis=1)[:, last]  # (s, g)
    right = np.cumsum(w * positive[order], axis=1)[:, last]
    total = right[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(here > 0, right / np.maximum(here, 1e-300), 0.0)
        if interpolation == "none":
            gained = np.diff(right, axis=1, prepend=0.0)
            return np.asarray((gained * precision).sum(1) / np.where(total > 0, total, np.nan))
        recall = right / np.where(total > 0, total, np.nan)[:, None]
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at this recall or a higher one
    sums = np.zeros(len(given))
    for tenth in range(11):
        reached = recall >= tenth / 10 - 1e-12
        sums += np.where(reached.any(1), best[np.arange(len(best)), reached.argmax(1)], 0.0)
    return np.where(total > 0, sums / 11, np.nan)


def chance_precision(positives: int, images: int) -> float:
    """The expected average precision ("none") of a random order: the prevalence, and what luck adds at the top of a
    short list. Bestgen, "Exact expected average precision of the random baseline", 2015."""
    if images < 2:
        return float(positives)
    harmonic = float((1 / np.arange(1, images + 1)).sum())
    return ((positives - 1) / (images - 1) * (images - harmonic) + harmonic) / images
