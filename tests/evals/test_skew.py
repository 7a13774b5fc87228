import numpy as np
import pytest
from scipy.stats import entropy

from diptych.evals import skew
from tests.reference import group_bias


def _ranked(seed, queries=4, n=60, groups=3):
    return np.random.default_rng(seed).integers(0, groups, (queries, n))


@pytest.mark.parametrize("desired", ["population", "uniform"])
@pytest.mark.parametrize("k", [1, 7, 60])
def test_both_measures_are_those_of_the_plain_loop(desired, k):
    ranked = _ranked(0)
    wanted = skew.desired_distribution(ranked[0], 3, desired)
    found = skew.ranked_groups(ranked, k, wanted)
    for q, row in enumerate(ranked.tolist()):
        assert found.max_skew[q] == pytest.approx(group_bias.max_skew(row, k, wanted.tolist()))
        assert found.ndkl[q] == pytest.approx(group_bias.ndkl(row, wanted.tolist()))


def test_the_divergence_is_scipys():
    ranked, wanted = _ranked(1, queries=1), np.array([0.5, 0.3, 0.2])
    weights = 1 / np.log2(np.arange(2, 62))
    each = [entropy(np.bincount(ranked[0, :i], minlength=3) / i, wanted) for i in range(1, 61)]
    assert skew.normalised_discounted_kl(ranked, wanted)[0] == pytest.approx((each * weights).sum() / weights.sum())


def test_by_hand():
    # two groups, half each; the first four are all of group 0, the absent one counts as 1/k
    ranked = np.array([[0, 0, 0, 0, 1, 1, 1, 1]])
    found = skew.ranked_groups(ranked, 4, np.array([0.5, 0.5]))
    assert found.max_skew[0] == pytest.approx(np.log(2))
    assert found.most[0] == 0
    assert skew.skew_at_k(ranked, 4, np.array([0.5, 0.5]))[0, 1] == pytest.approx(np.log(0.25 / 0.5))
    assert skew.normalised_discounted_kl(np.array([[0, 0]]), np.array([0.5, 0.5]))[0] == pytest.approx(np.log(2))
    assert skew.ranked_groups(ranked, 8, np.array([0.5, 0.5])).max_skew[0] == 0


def test_the_largest_skew_is_never_negative():
    rng = np.random.default_rng(2)
    for _ in range(50):
        groups = int(rng.integers(2, 9))
        ranked = rng.integers(0, groups, (3, 30))
        wanted = rng.dirichlet(np.ones(groups))
        assert (skew.ranked_groups(ranked, int(rng.integers(1, 31)), wanted).max_skew >= 0).all()
    absent = skew.ranked_groups(np.zeros((1, 5), int), 5, np.array([1.0, 0.0]))
    assert (absent.max_skew[0], absent.most[0]) == (0, 0)


def test_ties_are_broken_at_random_but_always_alike():
    order = skew.rank_images(np.zeros((50, 2)), 0)
    assert sorted(order[0].tolist()) == list(range(50))
    assert order[0].tolist() != list(range(50))
    assert (order == skew.rank_images(np.zeros((50, 2)), 0)).all()
    assert skew.rank_images(np.array([[0.1], [0.9], [0.5]]), 0)[0].tolist() == [1, 2, 0]


def _tests(seed, shift, n=200, queries=5, draws=60):
    rng = np.random.default_rng(seed)
    of = rng.permutation(np.arange(n) % 4)
    scores = rng.standard_normal((n, queries)) + shift * (of == 0)[:, None]
    return skew.skew_tests(skew.rank_images(scores, 0), of, 20, 100, "population", draws, draws, seed)


def test_a_planted_skew_is_found_and_its_absence_is_not():
    planted = _tests(0, 1.5)
    for name in ("max_skew", "ndkl"):
        assert planted[name].estimate.low > planted[name].estimate.chance
        assert planted[name].p_value < 0.05
    held, small = [], []
    for seed in range(16):
        for test in _tests(seed, 0.0).values():
            e = test.estimate
            assert 0 <= e.low <= e.value <= e.high
            held.append(e.low <= e.chance)
            small.append(test.p_value < 0.05)
    assert np.mean(held) > 0.87
    assert np.mean(small) < 0.16


def test_a_resample_repeats_what_was_drawn_often():
    row, of = np.array([2, 0, 1]), np.array([5, 6, 7])
    assert skew._resampled(row, np.array([1, 0, 2]), of, 10).tolist() == [7, 7, 5]
    assert skew._resampled(row, np.array([1, 0, 2]), of, 1).tolist() == [7]
