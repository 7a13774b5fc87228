"""The area under the curve: against all pairs counted one by one, and its interval against what repeats give."""

import numpy as np
import pytest

from diptych.core.errors import EvalError
from diptych.studies.planted_scores import area, placements


def _plain(better: np.ndarray, worse: np.ndarray) -> float:
    return float(np.mean([(b > w) + 0.5 * (b == w) for b in better for w in worse]))


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    better, worse = rng.integers(0, 9, 40) + 1.0, rng.integers(0, 9, 25) * 1.0  # with ties
    found = area([better.tolist()], [worse.tolist()])
    assert found.value == pytest.approx(_plain(better, worse))
    assert found.low < found.value < found.high
    assert area([[2.0, 3.0]], [[0.0, 1.0]]).value == 1
    assert area([[1.0, 1.0]], [[1.0, 1.0]]).value == 0.5
    assert placements([1.0], [0.0, 1.0, 2.0, 3.0]).tolist() == [0.375]


def test_of_several_models_it_is_the_mean_of_their_areas() -> None:
    rng = np.random.default_rng(1)
    better, worse = rng.normal(1, 1, (3, 30)), rng.normal(0, 1, (3, 20))
    alone = [area([b], [w]).value for b, w in zip(better, worse, strict=True)]
    assert area(better, worse).value == pytest.approx(np.mean(alone))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    truth = 0.7602499389065233  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    held = 0
    for _ in range(400):
        found = area([rng.normal(1, 1, 60)], [rng.normal(0, 1, 40)])
        held += found.low <= truth <= found.high
    assert 0.91 <= held / 400 <= 0.98  # 95 % less or more than three deviations of 1.1 %, and a little for the normal


def test_scores_that_cannot_be_ordered_and_too_few_are_refused() -> None:
    with pytest.raises(EvalError, match="scores must be finite"):
        area([[1.0, float("nan")]], [[0.0, 1.0]])
    with pytest.raises(EvalError, match="two records of each kind at least; got 2 and 1"):
        area([[1.0, 2.0]], [[0.0]])
