import random

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score

from diptych.evals.yes_no import (
    answer_counts,
    balanced_accuracy,
    f1,
    hits_of,
    is_unclear,
    precision,
    read_answer,
    recall,
)


@pytest.mark.parametrize(
    ("said", "original", "lmms_eval", "unclear"),
    [
        ("yes", "yes", "yes", False),
        ("No", "no", "no", False),
        ("Yes.", "yes", "", False),
        ("No, there is not.", "no", "", False),
        ("Yes, there is. No doubt.", "yes", "", False),
        ("There is not a dog", "no", "", False),
        ("no!", "yes", "", False),
        ("NO", "yes", "no", False),
        ("", "yes", "", True),
        ("a dog", "yes", "", True),
        ("There isn't one", "yes", "", False),
        (" yes\n", "yes", "yes", False),
        ("no\nit is", "yes", "", False),
        ("nothing", "yes", "", True),
        ("3.5 no", "yes", "", False),
    ],
)
def test_the_two_readings_and_where_they_part(said, original, lmms_eval, unclear):
    assert (read_answer(said, "original"), read_answer(said, "lmms_eval")) == (original, lmms_eval)
    assert is_unclear(said) == unclear


def test_metrics_are_sklearns():
    draws = random.Random(0)
    truth = draws.choices(["yes", "no"], k=300)
    read = [t if draws.random() < 0.7 else draws.choice(["yes", "no"]) for t in truth]
    sums = answer_counts(read, truth).sum(0, keepdims=True)
    how = {"pos_label": "yes"}
    assert precision(sums)[0] == pytest.approx(precision_score(truth, read, **how))
    assert recall(sums)[0] == pytest.approx(recall_score(truth, read, **how))
    assert f1(sums)[0] == pytest.approx(f1_score(truth, read, **how))
    assert balanced_accuracy(sums)[0] == pytest.approx(balanced_accuracy_score(truth, read))
    assert hits_of(read, truth).mean() == (sums[0, 0] + sums[0, 2]) / 300


def test_who_always_says_the_same_has_half_of_balance():
    truth = ["yes"] * 30 + ["no"] * 10
    for word in ("yes", "no"):
        sums = answer_counts([word] * 40, truth).sum(0, keepdims=True)
        assert balanced_accuracy(sums)[0] == 0.5
    sums = answer_counts(["no"] * 40, truth).sum(0, keepdims=True)
    assert np.isnan(precision(sums)[0])
    assert f1(sums)[0] == 0
    neither = answer_counts(["", "yes"], ["yes", "yes"]).sum(0, keepdims=True)
    assert recall(neither)[0] == 1, "as lmms-eval counts: what is neither misses nothing"
    assert neither[0, 4] == 1
