import numpy as np
import pytest

from diptych.evals.macro import macro_estimate, macro_weights


def test_the_mean_of_weighted_items_is_the_mean_over_groups():
    groups = np.array([0, 0, 0, 5, 9, 9])
    values = np.array([1.0, 0, 1, 1, 0, 0])
    assert (macro_weights(groups) * values).mean() == pytest.approx((2 / 3 + 1 + 0) / 3)
    e = macro_estimate(values, groups, np.arange(6), 0.5)
    assert e.value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert e.low <= e.value <= e.high
    assert (e.n, e.chance) == (6, 0.5)


def test_the_interval_covers_the_truth_and_clusters_widen_it():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], [40, 160])
    covered = 0
    for seed in range(100):
        values = (rng.random(200) < np.where(groups == 0, 0.3, 0.8)).astype(float)
        e = macro_estimate(values, groups, np.arange(200), None, samples=300, seed=seed)
        covered += e.low <= 0.55 <= e.high
    assert covered >= 88
    same = np.repeat(rng.random(50) < 0.5, 4).astype(float)
    alone = macro_estimate(same, groups, np.arange(200), None)
    together = macro_estimate(same, groups, np.arange(200) // 4, None)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    assert together.n == 50


def test_near_the_ends_it_is_no_narrower_than_the_score_intervals():
    groups = np.repeat([0, 1], 20)
    perfect = macro_estimate(np.ones(40), groups, np.arange(40), 0.5)
    assert perfect.high == 1
    assert 0.85 < perfect.low < 1
    none = macro_estimate(np.zeros(40), groups, np.arange(40), 0.0)
    assert (none.low, none.high > 0) == (0, True)
    assert macro_estimate(np.ones(3), np.array([0, 0, 1]), np.zeros(3, int), None).n == 1
