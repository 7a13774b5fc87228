import numpy as np
import pytest
import torch

from diptych.evals.class_results import blind_chance, class_figures, class_items, class_metrics, predictions
from diptych.evals.frozen_features import Labelled
from diptych.evals.prompts import Classes
from tests.evals import fakes


def _judged(n=70, classes=7):
    split = fakes.labelled(n, classes)
    hashes = [str(i).encode() for i in range(n)]
    return Labelled(split, list(range(n)), hashes, torch.zeros(n, 2), np.arange(n) % classes)


def test_accuracies_are_scikit_learns():
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

    judged = _judged()
    judged.truth[:12] = 0
    scores = torch.randn(70, 7, generator=torch.Generator().manual_seed(0))
    scores[torch.arange(70), torch.from_numpy(judged.truth)] += 1
    found = class_metrics(predictions(scores, judged.truth), judged, 7, 0.2, 1000, 0)
    predicted = scores.argmax(1).numpy()
    assert found["acc_at_1"].value == accuracy_score(judged.truth, predicted)
    assert found["acc_at_1"].chance == 0.2
    assert found["acc_at_5"].value == pytest.approx(top_k_accuracy_score(judged.truth, scores, k=5))
    assert found["mean_per_class_recall"].value == pytest.approx(balanced_accuracy_score(judged.truth, predicted))
    for name, values in class_items(predictions(scores, judged.truth), judged, 7)["images"].values.items():
        assert np.mean(values) == pytest.approx(found[name].value)


def test_a_class_that_cannot_be_guessed_is_never_right():
    scores = torch.full((2, 6), -torch.inf)
    scores[:, :2] = 0.5
    found = predictions(scores, np.array([0, 5]))
    assert found.in_top_5.tolist() == [True, False]


def test_the_blind_know_only_what_is_frequent():
    assert blind_chance(np.array([0, 0, 1]), np.array([0, 1, 1, 1])) == 0.25
    assert blind_chance(np.array([0, 1]), np.array([0, 1, 1, 2])) == pytest.approx(3 / 8)


def test_figures_show_classes_confusions_and_mistakes():
    judged = _judged()
    scores = torch.eye(7)[torch.from_numpy(judged.truth)]
    scores[3], scores[4] = torch.eye(7)[0] * 2, torch.eye(7)[0]
    figures = class_figures(predictions(scores, judged.truth), judged, Classes(*[tuple("abcdefg")] * 2, ""), 5)
    assert [f.title for f in figures] == ["Recall by class", "What is taken for what", "Surest mistakes"]
    assert figures[1].rows == (("d", "a", "1"), ("e", "a", "1"))
    assert [p.detail for p in figures[2].pictures] == ["is d", "is e"]
    assert all("<" in f.html() for f in figures)
    perfect = torch.eye(7)[torch.from_numpy(judged.truth)]
    assert len(class_figures(predictions(perfect, judged.truth), judged, Classes(*[tuple("abcdefg")] * 2, ""), 5)) == 1
