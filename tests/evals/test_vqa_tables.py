import numpy as np

from diptych.evals.questions import Choices, Question
from diptych.evals.vqa_tables import MOST_CLASSES, vqa_tables
from tests.evals import fakes

ASKED = [Question(i // 2, f"q{i}", "a" if i % 2 else "b") for i in range(12)]


def test_pictures_are_of_different_images_and_the_surest_mistakes_come_first():
    said = ["a"] * 12
    confidence = np.linspace(0.1, 0.9, 12)
    found = vqa_tables(fakes.pairs(6), ASKED, said, np.arange(12) % 2 == 1, confidence, Choices(("a", "b"), "x"), 4)
    assert [a["confidence"] for a in found["answers_wrong"]] == sorted(confidence[::2].round(4), reverse=True)[:4]
    assert len({a["uid"] for a in found["answers_wrong"]}) == 4
    assert all(a["right"] for a in found["answers_right"])
    assert found["confusion"] == {"classes": ["a", "b"], "matrix": [[6, 0], [6, 0]]}
    assert found["top_confusions"] == [{"class": "b", "predicted": "a", "count": 6}]


def test_many_answers_have_no_matrix():
    asked = [Question(0, "q", f"answer {i}") for i in range(MOST_CLASSES + 1)]
    found = vqa_tables(
        fakes.pairs(1),
        asked,
        ["answer 0"] * len(asked),
        np.arange(len(asked)) == 0,
        None,
        Choices(("answer 0",), "x"),
        1,
    )
    assert "confusion" not in found
    assert len(found["top_confusions"]) == 50
    assert found["answers_wrong"][0]["confidence"] is None
