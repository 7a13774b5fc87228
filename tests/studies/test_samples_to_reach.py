import math

import numpy as np
import pytest

from diptych.studies.samples_to_reach import factor, samples_to_reach

SAMPLES = np.array([100.0, 200.0, 400.0, 800.0])


def test_a_level_is_reached_between_points_by_the_logarithm():
    curve = np.array([0.0, 0.1, 0.3, 0.3])
    assert samples_to_reach(SAMPLES, curve, 0.1) == pytest.approx(200)
    assert samples_to_reach(SAMPLES, curve, 0.2) == pytest.approx(math.sqrt(200 * 400))
    assert samples_to_reach(SAMPLES, curve, 0.0) == 100
    assert samples_to_reach(SAMPLES, curve, 0.4) == math.inf


def hits(shares: list[float], items: int = 200, seeds: int = 2) -> np.ndarray:
    generator = np.random.default_rng(0)
    order = np.stack([generator.permutation(items) for _ in range(seeds)])
    return np.stack([order < round(s * items) for s in shares], axis=1)


def test_the_factor_is_that_of_the_curves_and_its_interval_holds_it():
    fast, slow = hits([0.1, 0.2, 0.4, 0.6]), hits([0.0, 0.05, 0.1, 0.2])
    found = factor(SAMPLES, fast, slow, draws=200)
    assert found.value == pytest.approx(4)  # 800 samples against 200
    assert found.low < 4 < found.high
    assert found.low > 2
    assert not found.at_least
    assert factor(SAMPLES, fast, slow, draws=200) == found


def test_what_is_never_reached_and_what_is_reached_at_once_are_told():
    fast, slow = hits([0.1, 0.2, 0.4, 0.6]), hits([0.0, 0.01, 0.02, 0.05])
    assert factor(SAMPLES, slow, fast, draws=50).value == 0
    early = factor(SAMPLES, fast, slow, draws=50)
    assert (early.value, early.at_least) == (8, True)
