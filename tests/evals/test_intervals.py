import numpy as np
import pytest
from scipy import stats

from diptych.core.errors import EvalError
from diptych.evals.intervals import student_quantile, student_tail, wilson


def _coverage(n: int, p: np.ndarray) -> np.ndarray:
    """The exact chance that the interval of n items holds each p: a sum over all numbers of hits."""
    hits = np.arange(n + 1)
    ends = np.array([wilson(int(h), n) for h in hits])
    held = (ends[:, :1] <= p) & (p <= ends[:, 1:])
    return (stats.binom.pmf(hits[:, None], n, p) * held).sum(0)


@pytest.mark.parametrize("n", [50, 200, 1000])
@pytest.mark.parametrize("low,high", [(0.002, 0.02), (0.01, 0.05), (0.05, 0.1), (0.1, 0.3), (0.4, 0.6), (0.95, 0.998)])
def test_a_share_is_covered_95_times_in_100(n, low, high):
    """Hits are whole numbers, so coverage jumps with p (at n = 50 from 0.91 to 0.99 near the ends): over a range of p,
    which no model's accuracy is known better than, it must be right. Nothing is drawn."""
    assert 0.94 <= _coverage(n, np.linspace(low, high, 201)).mean() <= 0.96


def test_no_share_is_covered_much_less():
    for n in (50, 200, 1000):
        assert _coverage(n, np.linspace(1 / n, 0.5, 400)).min() > 0.9


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 10, 49, 400, 999, 1001, 10_000])
def test_student_is_scipy_s(freedom):
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-5)
    for t in (0.0, 0.5, 2.0, 4.0):
        assert student_tail(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), abs=3e-4)
    assert student_tail(-2.0, freedom) == student_tail(2.0, freedom)


def test_an_interval_needs_an_item():
    with pytest.raises(EvalError, match="at least one item; got 0"):
        wilson(0, 0)
