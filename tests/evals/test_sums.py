import numpy as np
import pytest

from diptych.evals.sums import Resampling, quotient, sums_estimate


def _precision(sums):
    return quotient(sums[:, 0], sums[:, :2].sum(1))


def test_the_value_is_of_the_sums_and_the_interval_over_clusters():
    draws = np.random.default_rng(0)
    counts = draws.integers(0, 4, (200, 2)).astype(float)
    e = sums_estimate(counts, _precision, np.arange(200), 0.5)
    assert e.value == pytest.approx(counts[:, 0].sum() / counts.sum())
    assert e.low < e.value < e.high
    assert (e.n, e.chance) == (200, 0.5)
    twice = sums_estimate(np.concatenate([counts, counts]), _precision, np.concatenate([np.arange(200)] * 2), 0.5)
    assert twice == e, "saying everything twice tells nothing new"
    assert sums_estimate(counts, _precision, np.arange(200), 0.5, Resampling(seed=1)) != e


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(100):
        draws = np.random.default_rng(seed)
        yes = draws.random((120, 3)) < 0.4
        counts = np.stack([yes.sum(1), (~yes).sum(1)], 1).astype(float)
        e = sums_estimate(counts, _precision, np.arange(120), None, Resampling(300, seed))
        held += e.low <= 0.4 <= e.high
    assert 88 <= held <= 99


def test_where_all_agree_or_nothing_is_known():
    all_right = np.array([[2.0, 0], [1, 0], [3, 0]])
    e = sums_estimate(all_right, _precision, np.arange(3))
    assert e.value == 1
    assert 0.2 < e.low < 0.6
    nothing = sums_estimate(np.zeros((3, 2)), _precision, np.arange(3), 0.5, higher_is_better=False)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 1)
    assert not nothing.above_chance
    some = np.array([[1.0, 0], [0, 1], *[[0.0, 0.0]] * 8])
    assert np.isfinite(sums_estimate(some, _precision, np.arange(10)).low), "draws of nothing are left out"
