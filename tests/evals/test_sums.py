import numpy as np
import pytest

from diptych.evals.sums import Resampling, quotient, sums_estimate


def _precision(sums):
    return quotient(sums[:, 0], sums[:, :2].sum(1))


def test_the_value_is_of_the_sums_and_the_interval_over_clusters():
    draws = np.random.default_rng(0)
    counts = draws.integers(1, 4, (200, 2)).astype(float)
    e = sums_estimate(counts, _precision, np.arange(200), 0.5)
    assert e.value == pytest.approx(counts[:, 0].sum() / counts.sum())
    assert e.low < e.value < e.high
    assert (e.n, e.chance) == (200, 0.5)
    twice = sums_estimate(np.concatenate([counts, counts]), _precision, np.concatenate([np.arange(200)] * 2), 0.5)
    assert twice == e, "saying everything twice tells nothing new"
    assert sums_estimate(counts, _precision, np.arange(200), 0.5, Resampling(seed=1)) != e


@pytest.mark.parametrize(("p", "clusters"), [(0.4, 120), (0.97, 40), (0.02, 60)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(p, clusters):
    """Also near 0 and 1, where percentiles alone hold it in 60 to 80 of a hundred."""
    held = 0
    for seed in range(200):
        draws = np.random.default_rng(seed)
        sizes = draws.integers(0, 4, clusters)
        hits = draws.binomial(sizes, p)
        counts = np.stack([hits, sizes - hits], 1).astype(float)
        e = sums_estimate(counts, _precision, np.arange(clusters), None, Resampling(200, seed))
        held += e.low <= p <= e.high
    assert 182 <= held <= 200


def test_where_all_agree_or_nothing_is_known():
    all_right = np.array([[2.0, 0], [1, 0], [3, 0]])
    e = sums_estimate(all_right, _precision, np.arange(3))
    assert e.value == 1
    assert 0.2 < e.low < 0.6
    nothing = sums_estimate(np.zeros((3, 2)), _precision, np.arange(3), 0.5, higher_is_better=False)
    assert (nothing.value, nothing.low, nothing.high, nothing.n) == (0, 0, 1, 0)
    assert not nothing.above_chance
    some = np.array([[1.0, 0], [0, 1], *[[0.0, 0.0]] * 98])
    few = sums_estimate(some, _precision, np.arange(100))
    assert (few.value, few.n) == (0.5, 2)
    assert few.low < 0.1
    assert few.high > 0.9, "a hundred pictures, of two of which something is said"
    one = sums_estimate(some[1:], _precision, np.arange(99))
    assert (one.value, one.low, one.n) == (0, 0, 1)
    assert one.high > 0.7
