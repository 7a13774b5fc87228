import numpy as np
import pytest

from diptych.core.errors import EvalError
from diptych.evals import statistics
from diptych.evals.intervals import student_tail
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


@pytest.mark.parametrize("n", [8, 9, 60])
def test_the_median_of_independent_items_has_the_distribution_of_the_loop(n):
    values = np.random.default_rng(0).permutation(n).astype(float) ** 2
    slow = bootstrap.resampled(values, np.arange(n), 4000, 1, np.median)
    lower, upper = statistics._resampled_middle(n, 4000, 2)
    fast = (np.sort(values)[lower] + np.sort(values)[upper]) / 2
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):  # of the one below where of the other, within four standard errors
        assert abs((fast <= np.quantile(slow, share)).mean() - (slow <= np.quantile(slow, share)).mean()) < 0.045
    many = np.arange(1_000_001.0)
    assert np.allclose(statistics.bootstrap_median(many), 500_000 + np.array([-980, 980]), atol=200)


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


def _holds(covered: list[bool], low: float = 0.93, high: float = 0.97) -> bool:
    """Whether a share of simulations is within what is allowed, give or take two of its own standard errors."""
    share, error = np.mean(covered), 2 * np.sqrt(0.05 * 0.95 / len(covered))
    return low - error <= share <= high + error


def _alike(rng: np.random.Generator, m: int, p: float, alike: float) -> tuple[np.ndarray, np.ndarray]:
    """Hits of m images with 1 to 6 captions each, whose correlation within an image is `alike`."""
    clusters = np.repeat(np.arange(m), rng.integers(1, 7, m))
    if not alike:
        return (rng.random(len(clusters)) < p).astype(float), clusters
    prior = (1 - alike) / alike
    rate = rng.beta(p * prior, (1 - p) * prior, m)
    return (rng.random(len(clusters)) < rate[clusters]).astype(float), clusters


def _simulate_clustered(m: int, low: float, high: float, alike: float, repeats: int) -> list[bool]:
    rng = np.random.default_rng(0)
    covered = []
    for p in rng.uniform(low, high, repeats):  # a range of p: see test_intervals.py
        e = statistics.share_estimate(*_alike(rng, m, p, alike))
        covered.append(e.low <= p <= e.high)
    return covered


@pytest.mark.parametrize("alike", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("m,low,high", [(50, 0.45, 0.55), (50, 0.85, 0.95), (200, 0.02, 0.08), (200, 0.9, 0.98)])
def test_clustered_shares_are_covered_95_times_in_100(m, low, high, alike):
    assert _holds(_simulate_clustered(m, low, high, alike, 600))


@pytest.mark.slow
@pytest.mark.parametrize("alike", [0.0, 0.1, 0.3, 0.6])
@pytest.mark.parametrize(
    "low,high", [(0.005, 0.03), (0.02, 0.08), (0.1, 0.2), (0.45, 0.55), (0.9, 0.98), (0.97, 0.995)]
)
@pytest.mark.parametrize("m", [50, 200, 1000])
def test_clustered_shares_are_covered_everywhere(m, low, high, alike):
    """Where only a few images have any hit, intervals are wider than they need be: a hit more or less is all there is,
    and nothing says how alike captions are. They are never much too narrow."""
    few = m * min(low, 1 - high) * 3 < 5
    assert _holds(_simulate_clustered(m, low, high, alike, 4000), 0.92, 1.0 if few else 0.975)


@pytest.mark.parametrize("n", [50, 200])
def test_means_of_ranks_turned_round_are_covered(n):
    """MRR: values within 0..1 that are no hits."""
    rng = np.random.default_rng(1)
    ranks = np.arange(1, 4000)
    for q in (0.3, 0.8):
        weights = (1 - q) ** (ranks - 1) * q
        truth = float((weights / ranks).sum() / weights.sum())
        covered = []
        for _ in range(500):
            e = statistics.mean_estimate(1 / rng.geometric(q, n))
            covered.append(e.low <= truth <= e.high)
        assert _holds(covered)


@pytest.mark.parametrize(
    "groups,small,large,low,high",
    [(10, 3, 5, 0.1, 0.95), (10, 20, 60, 0.8, 1), (100, 1, 5, 0.3, 1), (3, 50, 90, 0.9, 1), (50, 20, 21, 0, 0.9)],
)
def test_means_over_classes_are_covered(groups, small, large, low, high):
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(500):
        truth, sizes = rng.uniform(low, high, groups), rng.integers(small, large, groups)
        e = statistics.stratified_mean(rng.binomial(sizes, truth), sizes, None)
        covered.append(e.low <= truth.mean() <= e.high)
    assert _holds(covered)


def test_medians_are_covered():
    """Ranks are whole numbers and the median one of them, so that it is held a little more often than 95 in 100."""
    rng = np.random.default_rng(3)
    for n, q in ((50, 0.02), (50, 0.1), (201, 0.02)):
        truth = int(np.ceil(np.log(0.5) / np.log(1 - q)))
        covered = []
        for seed in range(250):
            low, high = statistics.bootstrap_median(rng.geometric(q, n).astype(float), samples=300, seed=seed)
            covered.append(low <= truth <= high)
        assert _holds(covered, 0.93, 0.99)


def _differing(
    rng: np.random.Generator, m: int, wins: float, losses: float, clustered: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models' hits: a wins and loses these shares of the items; clustered: 1 to 6 an image, some images easier to
    tell apart than others."""
    sizes = rng.integers(1, 7, m) if clustered else np.ones(m, int)
    clusters = np.repeat(np.arange(m), sizes)
    more = np.where(rng.random(m) < 0.5, 1.6, 0.4)[clusters] if clustered else np.ones(m)
    drawn = rng.random(len(clusters)) / more
    won, lost = drawn < wins, (drawn >= wins) & (drawn < wins + losses)
    both = rng.random(len(clusters)) < 0.5
    return np.where(won | (both & ~lost), 1.0, 0.0), np.where(lost | (both & ~won), 1.0, 0.0), clusters


def _simulate_pairs(m: int, wins: float, losses: float, clustered: bool, repeats: int) -> tuple[list[bool], list[bool]]:
    rng = np.random.default_rng(4)
    covered, alarms = [], []
    for seed, part in enumerate(rng.uniform(0.8, 1.2, repeats)):
        a, b, clusters = _differing(rng, m, wins * part, losses * part, clustered)
        test = statistics.paired_difference(a, b, clusters, samples=500, seed=seed)
        covered.append(test.low <= (wins - losses) * part <= test.high)
        alarms.append(test.p_value < 0.05)
    return covered, alarms


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("m,wins,losses", [(50, 0.2, 0.1), (200, 0.06, 0.03), (400, 0.1, 0.1)])
def test_paired_differences_are_covered(m, wins, losses, clustered):
    assert _holds(_simulate_pairs(m, wins, losses, clustered, 500)[0], 0.93, 0.98)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("m,either", [(50, 0.03), (50, 0.2), (300, 0.05)])
def test_the_paired_test_alarms_falsely_at_most_5_times_in_100(m, either, clustered):
    assert _holds(_simulate_pairs(m, either, either, clustered, 600)[1], 0.0, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("m", [50, 200, 1000])
@pytest.mark.parametrize("wins,losses", [(0.03, 0.0), (0.02, 0.02), (0.1, 0.05), (0.25, 0.25)])
def test_paired_differences_and_alarms_everywhere(wins, losses, m, clustered):
    """Where a handful of items differ, the interval is wider than it need be, and the test alarms less often."""
    covered, alarms = _simulate_pairs(m, wins, losses, clustered, 3000)
    assert _holds(covered, 0.93, 0.975 if m * (wins + losses) > 15 else 1.0)
    if wins == losses:
        assert _holds(alarms, 0.0, 0.05)


def test_holm_keeps_the_rate_of_any_false_alarm_in_a_family():
    """Twelve metrics of one pair of models, correlated, on three of which they differ: of the other nine any alarm is a
    false one. Without adjustment there is one a third of the time."""
    rng = np.random.default_rng(5)
    adjusted, plain, found = [], [], []
    for _ in range(600):
        shared = rng.normal(size=80)
        p_values = {}
        for i in range(12):
            d = 0.5 * shared + rng.normal(size=80) + (0.6 if i < 3 else 0.0)
            z = d.mean() / (d.std(ddof=1) / np.sqrt(80))
            p_values[f"m{i}"] = student_tail(float(z), 79)
        holm = statistics.holm(p_values)
        adjusted.append(any(holm[f"m{i}"] < 0.05 for i in range(3, 12)))
        plain.append(any(p_values[f"m{i}"] < 0.05 for i in range(3, 12)))
        found.append(holm["m0"] < 0.05)
    assert _holds(adjusted, 0.0, 0.05)
    assert np.mean(plain) > 0.2
    assert np.mean(found) > 0.9
