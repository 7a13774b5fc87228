import sys

import numpy as np
import pytest
import torch

from diptych.core.errors import EvalError
from diptych.evals import frozen_features, linear_probe
from diptych.evals.frozen_features import Labelled
from diptych.evals.linear_probe import GRID, LinearProbeConfig, fit_logistic, sweep
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.labelled_data import Parts, judged_split


def _blobs(n, classes=4, seed=0, spread=1.5):
    """Labelled features: normal numbers about a mean for each class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    means = np.random.default_rng(99).normal(size=(classes, 8))
    features = torch.from_numpy(means[truth] + spread * rng.normal(size=(n, 8))).float()
    return Labelled(None, list(range(n)), [str(i).encode() for i in range(n)], features, truth)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_fit_is_scikit_learns_and_its_gradient_is_zero(classes):
    """Value: its predictions; gradient: that of the sum of cross-entropies and |w|^2 / (2 C), which L-BFGS ends at."""
    from sklearn.linear_model import LogisticRegression

    data = _blobs(200, classes)
    ours = fit_logistic(data.features, data.truth, 0.5)
    theirs = LogisticRegression(C=0.5, max_iter=1000).fit(data.features.double(), data.truth)
    scores = ours.scores(data.features, classes)
    assert scores.argmax(1).tolist() == theirs.predict(data.features.double()).tolist()
    np.testing.assert_allclose(scores.softmax(1), theirs.predict_proba(data.features.double()), atol=1e-9)
    tight = LogisticRegression(C=0.5, max_iter=1000, tol=1e-10).fit(data.features.double(), data.truth)
    w = torch.tensor(tight.coef_, requires_grad=True)
    logits = data.features.double() @ w.T + torch.tensor(tight.intercept_)
    logits = logits if classes > 2 else torch.cat([0 * logits, logits], 1)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.truth), reduction="sum") + (w**2).sum()
    assert float(torch.autograd.grad(loss, w)[0].abs().max()) < 1e-3


def test_the_sweep_halves_its_step_around_the_best(monkeypatch):
    """97 values, 7 tried first, then four times two beside the best: the best of an even curve is found."""
    peak = 37

    def fit(features, truth, c, iterations):
        place = round(8 * (np.log10(1 / c) + 6))
        right = 90 - abs(place - peak)  # of 100 validation images
        scores = torch.zeros(100, 2)
        scores[:right, 0], scores[right:, 1] = 1, 1
        return type("Fit", (), {"scores": lambda self, f, n: scores, "steps": 3})()

    monkeypatch.setattr(linear_probe, "fit_logistic", fit)
    validate = Labelled(None, [], [], torch.zeros(100, 1), np.zeros(100, int))
    tried = [t.place for t in sweep(validate, validate, 2)]
    assert tried[:7] == [0, 16, 32, 48, 64, 80, 96]
    assert tried[7:] == [24, 40, 36, 44, 34, 38, 37, 39]
    assert max(tried, key=lambda place: -abs(place - peak)) == peak
    assert (len(GRID), GRID[0], GRID[-1]) == (97, pytest.approx(1e-6), pytest.approx(1e6))
    assert np.diff(np.log10(GRID)) == pytest.approx(1 / 8)
    assert 1 / GRID[52] == pytest.approx(0.316, abs=1e-3)  # the README's C lies on the grid


def test_the_simplest_of_equally_good_probes_is_taken():
    data = _blobs(60, 2, spread=0.01)
    tried = sweep(data, data, 2, 50)
    best = max(tried, key=lambda t: (t.accuracy, t.place))
    assert best.accuracy == 1
    assert all(t.accuracy < 1 for t in tried if t.place > best.place)


def test_the_probe_validates_learns_anew_and_shows_its_sweep():
    result = LinearProbeConfig().build().run(fakes.model(by_label=True), judged_split(60))
    assert result.settings["validated_on"] == "20% of train"
    assert result.settings["learned_images"] == 200
    assert result.settings["chosen_C"] == pytest.approx(1 / result.settings["chosen_lambda"])
    assert [f.title for f in result.figures[:2]] == ["The probe", "The sweep"]
    assert len(result.figures[1].x) == len(result.figures[1].series["validation accuracy"]) <= 15
    given = LinearProbeConfig(C=0.316).build().run(fakes.model(by_label=True), judged_split(60))
    assert given.settings["chosen_C"] == 0.316
    assert "C is given" in given.settings["validated_on"]
    assert given.figures[1].title != "The sweep"


def test_a_validation_split_of_its_own_is_used_and_learned_from_at_last(monkeypatch):
    data = Parts(train=range(100, 200), val=range(40), test=range(300, 330))
    monkeypatch.setattr(frozen_features, "open_data", lambda folder: data)
    model = fakes.model(by_label=True)
    result = LinearProbeConfig(data="here").build().run(model, data.split("test"), False)
    assert result.settings["validated_on"] == "the split val"
    assert result.settings["learned_images"] == 140
    other = LinearProbeConfig(data="here", validation_split="test").build().run(model, data.split("val"), False)
    assert other.settings["validated_on"] == "the split test"
    share = LinearProbeConfig(data="here").build().run(model, data.split("val"), False)
    assert share.settings["validated_on"] == "20% of train"
    with pytest.raises(EvalError, match="choose C on other images than it is judged on"):
        LinearProbeConfig(data="here", validation_split="val").build().run(model, data.split("val"))


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(EvalError, match=r"pip install 'diptych\[probes\]'"):
        LinearProbeConfig().build().run(fakes.model(), judged_split(60))
    assert LinearProbeConfig().unsuited(fakes.model(), judged_split(60)) == "scikit-learn is not installed"


def contract_cases():
    def case(perfect, n):
        return Case(fakes.model(fakes.Embeds, perfect, by_label=perfect), judged_split(n), {}, n)

    return {"Embeds": case}
