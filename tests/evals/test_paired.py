import numpy as np
import pytest

from diptych.evals.paired import SeedsTest, items_needed, seeds_difference, verdict_words
from diptych.evals.statistics import PairedTest, paired_difference
from tests.reference import crossed


def _runs(rng: np.random.Generator, runs: int, easy: np.ndarray, seeds: float, better: float = 0.0) -> np.ndarray:
    """Hits of runs whose levels scatter by `seeds`, on items that differ in how easy they are."""
    level = better + rng.normal(0, seeds, runs)
    return (rng.random((runs, len(easy))) < easy + level[:, None]).astype(float)


def test_the_variance_is_that_of_resampled_seeds_and_items():
    """Where runs differ by their level alone; of 30 runs a group the bootstrap lacks 1/30 of the seeds' part. The
    scatter of single answers it counts three times (Owen, 2007), so that there is none here."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 2)
    a, b = (rng.uniform(0.2, 0.8, 120) + rng.normal(0, 0.15, (30, 1)) for _ in range(2))
    test = seeds_difference(a, b, clusters)
    slow = crossed.resampled(a, b, clusters, 1500, 1)
    assert test.difference == pytest.approx(a.mean() - b.mean())
    assert test.high - test.low == pytest.approx(2 * 1.98 * slow.std(), rel=0.06)  # t of some 100 degrees of freedom
    assert (test.runs_a, test.runs_b, test.n) == (30, 30, 60)


@pytest.mark.parametrize("runs_a,runs_b,seeds", [(3, 3, 0.04), (3, 3, 0.0), (1, 4, 0.04), (5, 5, 0.04)])
def test_recipes_that_differ_only_by_their_seeds_alarm_at_most_5_times_in_100(runs_a, runs_b, seeds):
    rng = np.random.default_rng(1)
    alarms, blind, covered = [], [], []
    for _ in range(400):
        easy = rng.uniform(0.2, 0.8, 250)
        a, b = _runs(rng, runs_a, easy, seeds), _runs(rng, runs_b, easy, seeds)
        test = seeds_difference(a, b)
        alarms.append(test.p_value < 0.05)
        covered.append(test.low <= 0 <= test.high)
        blind.append(paired_difference(a[0], b[0], samples=200).p_value < 0.05)
    assert np.mean(alarms) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(covered) == pytest.approx(1 - np.mean(alarms))
    assert seeds == 0 or np.mean(blind) > 0.15  # one run each, as if a seed were a recipe


def test_a_better_recipe_is_found_through_its_seeds():
    rng = np.random.default_rng(2)
    easy = rng.uniform(0.2, 0.7, 600)
    test = seeds_difference(_runs(rng, 4, easy, 0.01, 0.1), _runs(rng, 4, easy, 0.01))
    assert test.verdict() == "better"
    assert test.seeds_counted
    assert "p < 0.001" in verdict_words(test)


def test_one_run_each_says_nothing_of_seeds():
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 1, 50)) < 0.5
    test = seeds_difference(a, b)
    assert not test.seeds_counted
    assert test.p_value == paired_difference(a[0], b[0]).p_value


def test_as_many_items_as_are_said_to_be_needed_tell_the_difference_80_times_in_100():
    rng = np.random.default_rng(4)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        u = rng.random(n)
        return (u < 0.10).astype(float), ((u >= 0.10) & (u < 0.16)).astype(float)

    pilot = paired_difference(*drawn(20_000), samples=100)
    needed = items_needed(pilot, 0.04)
    assert needed == pytest.approx((1.96 + 0.8416) ** 2 * (0.16 - 0.04**2) / 0.04**2, rel=0.05)
    told = [paired_difference(*drawn(needed), samples=500, seed=i).p_value < 0.05 for i in range(400)]
    assert np.mean(told) == pytest.approx(0.8, abs=0.05)
    assert items_needed(pilot, 0.0) is None


def test_verdicts_in_words():
    far = PairedTest(0.021, 0.008, 0.034, 0.0004, 1837, 300, 0.28)
    assert verdict_words(far, adjusted=0.002) == "better by 2.1 points [0.8, 3.4], p = 0.002 (Holm)"
    assert verdict_words(far, higher_is_better=False) == "worse by 2.1 points [0.8, 3.4], p < 0.001"
    back = PairedTest(-0.021, -0.034, -0.008, 0.0004, 1837, 300, 0.28)
    assert verdict_words(back) == "worse by 2.1 points [0.8, 3.4], p < 0.001"
    near = PairedTest(0.004, -0.003, 0.011, 0.28, 1837, 30, 0.12)
    assert verdict_words(near) == (
        "indistinguishable at this n (1,837 images); about 5,200 more would tell a difference of 0.4 points"
    )
    stricter = verdict_words(near, adjusted=1.0)
    assert int(stricter.split("about ")[1].split(" ")[0].replace(",", "")) > 5200
    same = PairedTest(0.0, -0.01, 0.01, 1.0, 100, 0, 0.05)
    assert verdict_words(same, "questions").endswith("no difference seen; one of 1.4 points would be told")
    ranks = PairedTest(-2.5, -4.0, -1.0, 0.01, 50, 40, 5.0)
    assert verdict_words(ranks, percent=False, higher_is_better=False) == "better by 2.500 [1.000, 4.000], p = 0.010"
    tiny = PairedTest(0.000001, -0.1, 0.1, 0.9, 100, 30, 0.5)
    assert "too small for any number of images" in verdict_words(tiny)


def test_seeds_that_scatter_are_named():
    test = SeedsTest(0.01, -0.05, 0.07, 0.6, 500, 100, 0.3, 3, 3, 0.0004)
    assert verdict_words(test) == (
        "indistinguishable at this n (500 images, 3 and 3 seeds); more images alone would not tell, more seeds might: "
        "they scatter by more than 1.0 points"
    )
