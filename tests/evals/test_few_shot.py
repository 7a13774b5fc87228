import sys

import numpy as np
import pytest
import torch

from diptych.core.errors import EvalError
from diptych.evals.few_shot import FewShotConfig, class_means, drawn, student_t
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.labelled_data import judged_split


def _run(model, split, artifacts=False, **settings):
    return FewShotConfig(**{"method": "nearest_mean", **settings}).build().run(model, split, artifacts)


def test_draws_are_nested_and_differ():
    truth = np.arange(60) % 3
    few, many = drawn(truth, 1, 2, 0, 0), drawn(truth, 1, 8, 0, 0)
    assert many[:2].tolist() == few.tolist()
    assert (set(truth[many]), len(set(many.tolist()))) == ({1}, 8)
    assert drawn(truth, 1, 8, 0, 1).tolist() != many.tolist()


@pytest.mark.parametrize("method", ["probe", "nearest_mean"])
def test_accuracy_by_shots_is_a_mean_over_draws(method):
    result = _run(fakes.model(perfect=False), judged_split(60), True, method=method, shots=(1, 4), draws=3)
    for shots in (1, 4):
        by_draw = result.settings["accuracy_by_draw"][str(shots)]
        assert len(by_draw) == 3
        e = result.metrics[f"acc_at_1_{shots}_shot"]
        assert e.value == pytest.approx(np.mean(by_draw))
        assert result.settings["sd_over_draws"][str(shots)] == pytest.approx(np.std(by_draw, ddof=1))
        half = student_t(2) * np.std(by_draw, ddof=1) / 3**0.5
        assert e.high == 1 or e.high - e.value >= half - 1e-9  # the draws' spread is in the interval
    assert result.metrics["acc_at_1"] == result.metrics["acc_at_1_4_shot"]
    assert [f.title for f in result.figures] == [
        "How much a few images teach",
        "Accuracy by number of shots",
        "Classes with too few images",
    ]


def test_classes_with_too_few_images_are_named_and_left_out():
    """Of 200 images 10 classes have 20 each: capped at 30 some have too few."""
    split = judged_split(60)
    result = _run(fakes.model(by_label=True), split, True, max_train=30, shots=(1, 3, 16))
    left_out = result.settings["classes_left_out"]
    assert 0 < len(left_out["3"]) < 10
    assert result.metrics["acc_at_1_3_shot"].value == 1
    assert result.metrics["acc_at_1_3_shot"].chance == pytest.approx(1 / (10 - len(left_out["3"])))
    assert result.metrics["acc_at_1_3_shot"].n == 6 * (10 - len(left_out["3"]))
    assert "acc_at_1_16_shot" not in result.metrics
    assert result.settings["headline_shots"] == 3
    assert "all: no two have so many" in result.figures[2].rows[2][1]


def test_class_means_are_unit_means_of_unit_vectors():
    features = torch.tensor([[2.0, 0], [0, 5], [3, 3]])
    means, seen = class_means(features, np.array([0, 0, 2]), 4)
    half = 2**-0.5
    torch.testing.assert_close(means[[0, 2]], torch.tensor([[half, half], [half, half]]))
    assert seen.tolist() == [True, False, True, False]


def test_students_t_is_scipys():
    from scipy.stats import t

    for freedom in (1, 2, 3, 4, 7, 30, 101):
        assert student_t(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=1e-6)


def test_errors_say_what_to_do(monkeypatch):
    with pytest.raises(EvalError, match="2 classes with 50 images to learn from"):
        _run(fakes.model(), judged_split(60), shots=50)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(EvalError, match=r"diptych\[probes\]"):
        _run(fakes.model(), judged_split(60), method="probe")
    assert FewShotConfig().unsuited(fakes.model(), judged_split(60)) == "scikit-learn is not installed"
    assert FewShotConfig(method="nearest_mean").unsuited(fakes.model(), judged_split(60)) == ""


def contract_cases():
    def maker(method):
        def case(perfect, n):
            settings = {"method": method, "draws": 3, "shots": (2, 8)}
            return Case(fakes.model(fakes.Embeds, perfect, by_label=perfect), judged_split(n), settings, n)

        return case

    return {method: maker(method) for method in ("probe", "nearest_mean")}
