"""Wilson's interval of a proportion, and Student's distribution, without a library of statistics."""

from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from diptych.core.errors import EvalError

LEVEL = 0.95


class Interval(NamedTuple):
    """The two ends of an interval."""

    low: float
    high: float


def wilson(hits: float | int, n: float | int, level: float = LEVEL, critical: float | None = None) -> Interval:
    """Wilson's score interval of a proportion: never empty, also where all or none of `n` items are hits. `critical`:
    another quantile than the normal's (Student's).

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927. Hits are whole
    numbers, so that its coverage of a single p wanders round 95 %; over a range of p it is 95 % (Brown, Cai and
    DasGupta, "Interval estimation for a binomial proportion", 2001).
    """
    if n < 1:
        raise EvalError(f"an interval must rest on at least one item; got {n}. Evaluate more items.")
    z = NormalDist().inv_cdf(0.5 + level / 2) if critical is None else critical
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return Interval(0.0 if hits <= 0 else max(0.0, centre - half), 1.0 if hits >= n else min(1.0, centre + half))


@lru_cache(maxsize=64)
def _student(freedom: float | int) -> tuple[Float64[np.ndarray, " g"], Float64[np.ndarray, " g"]]:
    """Angles and P(|t| <= sqrt(freedom) tan(angle)): in the angle, Student's density is a power of the cosine."""
    angles = np.linspace(0, np.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    inside = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return angles, inside / inside[-1]


def student_quantile(freedom: float | int, level: float = LEVEL) -> float:
    """The t that holds `level` of Student's distribution within -t..t, for at least one degree of freedom."""
    if freedom > 1000:  # the first term of its expansion about the normal's
        z = NormalDist().inv_cdf(0.5 + level / 2)
        return z + (z**3 + z) / (4 * freedom)
    angles, inside = _student(round(max(1.0, freedom), 3))
    return float(np.sqrt(max(1.0, freedom)) * np.tan(np.interp(level, inside, angles)))


def student_tail(t: float, freedom: float | int) -> float:
    """The two-sided p-value of `t`."""
    if freedom > 1000:
        return 2 * NormalDist().cdf(-abs(t))
    angles, inside = _student(round(max(1.0, freedom), 3))
    return float(1 - np.interp(np.arctan(abs(t) / np.sqrt(max(1.0, freedom))), angles, inside))
