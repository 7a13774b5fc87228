"""How well a score tells two kinds of records apart, whatever the threshold: the area under its ROC curve."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from diptych.core.errors import EvalError
from diptych.evals.intervals import LEVEL

Scores = Sequence[float] | Float64[ndarray, " _"]


class Area(NamedTuple):
    """The chance that a record of the better kind scores above one of the worse kind (a tie counts half), with its
    95 % interval. Guessing: 0.5."""

    value: float
    low: float
    high: float


def area(better: Sequence[Scores] | Float64[ndarray, "m _"], worse: Sequence[Scores] | Float64[ndarray, "m _"]) -> Area:
    """Of the scores of the same records by one model or several: (models, records) of each kind; their mean area.

    The interval is over records, not over models. Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under
    two or more correlated receiver operating characteristic curves: a nonparametric approach", 1988, whose variance is
    var(V10) / m + var(V01) / n, of the placements of each record among those of the other kind.
    """
    above = np.mean([placements(b, w) for b, w in zip(better, worse, strict=True)], axis=0)
    below = np.mean([1 - placements(w, b) for b, w in zip(better, worse, strict=True)], axis=0)
    if len(above) < 2 or len(below) < 2:
        raise EvalError(
            f"an area must rest on two records of each kind at least; got {len(above)} and {len(below)}. Plant more."
        )
    value = float(above.mean())
    deviation = float(np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)))
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * deviation
    return Area(value, max(0.0, value - half), min(1.0, value + half))


def placements(of: Scores, among: Scores) -> Float64[ndarray, " n"]:
    """Of each score the share of the others that lie below it, those that equal it counting half."""
    ordered, mine = np.sort(np.asarray(among, dtype=float)), np.asarray(of, dtype=float)
    if not (np.isfinite(ordered).all() and np.isfinite(mine).all()):
        raise EvalError("scores must be finite to be ordered; got some that are not. Score the records again.")
    left, right = (np.searchsorted(ordered, mine, side=side) for side in ("left", "right"))
    return (left + right) / (2 * len(ordered))
