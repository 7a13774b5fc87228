import numpy as np
import pytest
import torch

from diptych.evals.average_precision import average_precision, chance_precision
from tests import torchvision_on_cpu


def _ranking(seed=0, n=200, levels=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n) if not levels else rng.integers(0, levels, n).astype(float)
    return scores, rng.random(n) < 0.2


@pytest.mark.parametrize("levels", [0, 7])
def test_it_is_scikit_learns_also_with_ties(levels):
    from sklearn.metrics import average_precision_score

    for seed in range(5):
        scores, positive = _ranking(seed, levels=levels)
        assert average_precision(scores, positive)[0] == pytest.approx(
            average_precision_score(positive, scores), abs=1e-12
        )


def test_it_is_clip_benchmarks_where_no_scores_are_equal():
    """Ties it takes in an arbitrary order, which are one place here: then they differ. It adds in float32."""
    torchvision_on_cpu.install()
    theirs = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    scores, positive = _ranking()
    given = torch.from_numpy(scores)[:, None], torch.from_numpy(positive)[:, None].float()
    assert average_precision(scores, positive)[0] == pytest.approx(
        theirs.average_precision_per_class(*given).item(), abs=1e-6
    )
    tied = np.zeros(4)
    order = torch.zeros(4, 1), torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    assert theirs.average_precision_per_class(*order).item() == 1  # the positive happens to come first
    assert average_precision(tied, np.array([True, False, False, False]))[0] == 0.25


def test_weights_are_repetitions():
    scores, positive = _ranking(n=40)
    weights = np.random.default_rng(1).integers(0, 4, (6, 40)).astype(float)
    for interpolation in ("none", "11_point"):
        found = average_precision(scores, positive, weights, interpolation)
        for row, value in zip(weights.astype(int), found, strict=True):
            again = average_precision(np.repeat(scores, row), np.repeat(positive, row), None, interpolation)[0]
            assert value == pytest.approx(again)


def test_eleven_points_by_hand():
    scores, positive = np.array([4.0, 3, 2, 1]), np.array([True, False, True, False])
    # recall 0..0.5 at precision 1, 0.6..1 at 2/3
    assert average_precision(scores, positive, None, "11_point")[0] == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert average_precision(scores, positive)[0] == pytest.approx((1 + 2 / 3) / 2)


def test_without_positives_there_is_none():
    assert np.isnan(average_precision(np.arange(3.0), np.zeros(3, bool))[0])


def test_chance_is_the_mean_of_random_orders():
    rng = np.random.default_rng(0)
    positive = np.arange(30) < 4
    found = np.mean([average_precision(rng.random(30), positive)[0] for _ in range(4000)])
    assert chance_precision(4, 30) == pytest.approx(found, abs=0.005)
    assert chance_precision(4, 30) > 4 / 30
    assert chance_precision(1, 1) == 1
