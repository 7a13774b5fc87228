import numpy as np
import pytest

from diptych.core.errors import EvalError
from diptych.evals import statistics
from tests.reference import bootstrap


def _clustered(seed: int = 0, m: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, m)
    clusters = np.repeat(np.arange(m), sizes)
    return (rng.random(m)[clusters] > rng.random(len(clusters))).astype(float), clusters


def test_the_fast_bootstrap_has_the_distribution_of_the_loop():
    values, clusters = _clustered()
    slow = np.quantile(bootstrap.resampled(values, clusters, 4000, 1), (0.025, 0.975))
    fast = statistics.bootstrap_mean(values, clusters, samples=4000, seed=2)
    assert fast == pytest.approx(slow, abs=0.012)  # the ends of 4000 resamples wander by about 0.004


def test_the_fast_median_has_the_distribution_of_the_loop():
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(40), 3)
    values = rng.geometric(0.05, 120).astype(float)
    slow = bootstrap.resampled(values, clusters, 3000, 1, np.median)
    fast = statistics.bootstrap_median(values, clusters, samples=3000, seed=2)
    assert fast == pytest.approx(np.quantile(slow, (0.025, 0.975)), abs=1.0)
    even = np.array([1.0, 2.0, 3.0, 10.0])
    assert statistics.median_estimate(even).value == 2.5


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_cover_the_truth_about_95_times_in_100(method):
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        rate = rng.beta(3, 5, 80)  # 80 images, 4 captions each, alike within an image
        hits = (rng.random((80, 4)) < rate[:, None]).astype(float).ravel()
        low, high = statistics.bootstrap_mean(hits, np.repeat(np.arange(80), 4), 400, seed, method=method)
        covered += low <= 3 / 8 <= high
    assert 178 <= covered <= 199


def test_intervals_that_ignore_clusters_would_be_too_narrow():
    hits = np.repeat((np.arange(50) % 2).astype(float), 5)
    low, high = statistics.bootstrap_mean(hits, np.repeat(np.arange(50), 5))
    alone = statistics.bootstrap_mean(hits)
    assert high - low > 2 * (alone.high - alone.low)


def test_all_and_none_still_have_an_interval():
    none, every = statistics.proportion(0, 100), statistics.proportion(100, 100)
    assert (none.low, none.value) == (0, 0)
    assert none.high == pytest.approx(0.0370, abs=1e-4)  # Wilson's z^2 / (n + z^2)
    assert (every.high, every.low) == (1, pytest.approx(1 - none.high))
    e = statistics.mean_estimate(np.ones(12), np.repeat(np.arange(4), 3))
    assert (e.n, e.value, e.high) == (4, 1, 1)
    assert e.low < statistics.wilson(4, 4).low  # over clusters, and Student's quantile of four
    one = statistics.mean_estimate(np.ones(3), np.zeros(3, int))
    assert one.low < 0.3


def test_what_cannot_be_known_is_refused():
    with pytest.raises(EvalError, match="finite values; got 2 values, 1 of them"):
        statistics.bootstrap_mean(np.array([1.0, np.nan]))
    with pytest.raises(EvalError, match="differ between clusters"):
        statistics.bootstrap_mean(np.array([7.0, 7.0]))
    with pytest.raises(EvalError, match="at least one item"):
        statistics.proportion(0, 0)


def test_mean_per_class_recall_weighs_classes_alike():
    e = statistics.stratified_mean(np.array([90, 1]), np.array([100, 2]), chance=0.5)
    assert e.value == pytest.approx(0.7)
    assert e.n == 102
    assert e.high - e.low > 0.4  # two images decide half of it, and the interval says so
    assert statistics.stratified_mean(np.array([5, 5]), np.array([5, 5]), None).low < 1


def test_the_mean_over_small_groups_covers_the_truth():
    """Classes of three images: resampling covers 86 % of the time, since many are all right or all wrong."""
    rng = np.random.default_rng(1)
    truth, sizes = rng.uniform(0.1, 0.95, 12), np.full(12, 3)
    covered = []
    for hits in rng.binomial(sizes, truth, (400, 12)):
        e = statistics.stratified_mean(hits, sizes, None)
        covered.append(e.low <= truth.mean() <= e.high)
    assert np.mean(covered) > 0.9
    one = statistics.stratified_mean(np.array([30]), np.array([32]), None)
    assert (one.low, one.high) == pytest.approx(statistics.wilson(30, 32), abs=0.005)


def test_paired_tests_tell_a_difference_from_none():
    rng = np.random.default_rng(0)
    a = (rng.random(400) < 0.6).astype(float)
    better = np.where(rng.random(400) < 0.15, 1.0, a)
    test = statistics.paired_difference(better, a)
    assert test.low > 0
    assert test.p_value < 0.001
    assert test.verdict() == "better"
    assert test.verdict(higher_is_better=False) == "worse"
    assert test.verdict(p_value=0.2) == "indistinguishable"
    shuffled = rng.permutation(a)
    assert statistics.paired_difference(a, shuffled).verdict() == "indistinguishable"
    assert statistics.paired_difference(a, a).p_value == 1


def test_the_sign_flip_p_is_that_of_the_binomial():
    a, b = np.array([1.0] * 9 + [0] + [1] * 20), np.array([0.0] * 9 + [1] + [1] * 20)
    test = statistics.paired_difference(a, b, samples=50_000)
    assert test.discordant == 10
    assert test.p_value == pytest.approx(2 * (1 + 10) / 2**10, abs=0.002)  # 9 or more of 10, two-sided
    assert statistics.paired_difference(np.ones(30), np.zeros(30)).low < 1


def test_holm_by_hand():
    adjusted = statistics.holm({"a": 0.03, "b": 0.01, "c": 0.5})
    assert adjusted == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.5})
    assert list(adjusted) == ["a", "b", "c"]


def test_compare_adjusts_for_the_number_of_metrics():
    a = {f"m{i}": np.array([1.0] * 7 + [0.0] * 40) for i in range(10)}
    b = {f"m{i}": np.zeros(47) for i in range(10)}
    assert statistics.paired_difference(a["m0"], b["m0"]).verdict() == "better"
    assert {v for _, v in statistics.compare(a, b).values()} == {"indistinguishable"}
