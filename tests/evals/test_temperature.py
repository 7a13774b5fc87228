import math

import numpy as np
import pytest
import torch

from diptych.evals.temperature import LOG_SCALES, fit_scale, probabilities


def _scores(n=20_000, classes=6, true_scale=5.0):
    """Scores, and truths drawn with the probabilities that they have at `true_scale`."""
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(n, classes)) * 0.4)
    p = probabilities(scores, true_scale).exp().numpy()
    truth = (p.cumsum(1) > rng.random(n)[:, None]).argmax(1)
    return scores, truth


def test_it_finds_the_scale_that_was_planted():
    assert fit_scale(*_scores()) == pytest.approx(5, rel=0.03)


def test_it_is_the_least_of_all_scales():
    scores, truth = _scores(500)
    best = fit_scale(scores, truth)

    def nll(scale):
        return -float(probabilities(scores, scale)[torch.arange(500), torch.from_numpy(truth)].mean())

    assert all(nll(best) <= nll(best * factor) for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2))


def test_it_stops_at_the_ends_where_nothing_is_least():
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert fit_scale(scores, np.array([0, 1])) == pytest.approx(math.exp(LOG_SCALES[1]))
    assert fit_scale(scores, np.array([1, 0])) == 0
    assert fit_scale(torch.ones(2, 3), np.array([1, 0])) == 0
