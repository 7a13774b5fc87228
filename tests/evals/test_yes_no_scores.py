import numpy as np
import pytest

from diptych.evals.questions import Question
from diptych.evals.yes_no_scores import Replies, YesNoScores
from tests.evals import fakes


def _scores(said, truth, blind=None, sorts=None, parser="original"):
    sorts = sorts or [""] * len(said)
    asked = [
        Question(i // 2, f"is there a thing {i % 3}", t, s) for i, (t, s) in enumerate(zip(truth, sorts, strict=True))
    ]
    return YesNoScores(Replies(asked, said, blind, np.arange(len(said)) // 2), parser, 200)


TRUTH = ["yes", "no"] * 30


def test_always_yes_is_at_chance_everywhere():
    metrics = _scores(["Yes."] * 60, TRUTH).metrics()
    assert (metrics["accuracy"].value, metrics["accuracy"].chance, metrics["accuracy"].n) == (0.5, 0.5, 30)
    assert metrics["f1"].value == pytest.approx(metrics["f1"].chance) == pytest.approx(2 / 3)
    assert metrics["precision"].value == metrics["precision"].chance == 0.5
    assert (metrics["recall"].value, metrics["yes_share"].value) == (1, 1)
    assert metrics["balanced_accuracy"].value == 0.5
    assert not any(e.above_chance for name, e in metrics.items() if name != "recall")
    assert metrics["lmms_eval_accuracy"].value == 0, "its reading takes no full stop"
    assert metrics["unparsed_share"].value == 0


def test_the_parser_is_chosen_and_the_other_stands_beside():
    said = ["yes", "No."] * 30
    by_original, by_lmms = (_scores(said, TRUTH, parser=p).metrics() for p in ("original", "lmms_eval"))
    assert by_original["accuracy"] == by_lmms["original_accuracy"]
    assert by_original["lmms_eval_accuracy"] == by_lmms["accuracy"]
    assert (by_original["accuracy"].value, by_lmms["accuracy"].value) == (1, 0.5)
    assert by_lmms["f1"].value == 1, "of what it can read, all is right"
    assert by_original["lmms_eval_f1"] == by_lmms["f1"]


def test_unequal_answers_have_the_more_frequent_as_chance():
    truth = ["no", "no", "no", "yes"] * 15
    metrics = _scores(["no"] * 60, truth).metrics()
    assert metrics["accuracy"].value == metrics["accuracy"].chance == 0.75
    assert metrics["balanced_accuracy"].value == 0.5
    assert (metrics["precision"].value, metrics["precision"].low, metrics["precision"].high) == (0, 0, 1)
    assert metrics["f1"].value == 0


def test_blind_answers_categories_and_items():
    said = [t if i % 4 else "yes" for i, t in enumerate(TRUTH)]
    scores = _scores(said, TRUTH, ["yes"] * 60, ["random", "popular"] * 30)
    metrics = scores.metrics()
    assert metrics["gain_over_blind"].value == pytest.approx(metrics["accuracy"].value - 0.5)
    assert metrics["gain_over_blind"].low > 0
    assert {"accuracy_random", "accuracy_popular", "f1_random", "f1_popular"} <= set(metrics)
    split = fakes.pairs(30)
    tables = scores.items(split)
    assert set(tables) == {"questions", "questions_random", "questions_popular"}
    for table in tables.values():
        for name, values in table.values.items():
            assert np.mean(values) == pytest.approx(metrics[name].value), name
    assert tables["questions"].keys[:3] == (f"{0:032x}#0", f"{0:032x}#1", f"{1:032x}#0")
    figures = scores.figures(split, 3)
    assert [sum(row) for row in figures[1].values] == [30, 30]
    assert len(figures[3].pictures) <= 3
