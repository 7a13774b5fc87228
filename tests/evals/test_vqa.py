import json

import numpy as np
import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import EvalError
from diptych.data.dataset import Dataset
from diptych.evals import vqa
from diptych.evals.questions import Question
from diptych.evals.vqa import VqaConfig, train_questions
from tests.data.tiny_pages import ANSWERS, asked, opened
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer


def _run(model, split, artifacts=False, **settings):
    return VqaConfig(**settings).build().run(model, split, artifacts)


@pytest.fixture
def train(monkeypatch):
    """Questions of a train split where the first question's answer is mostly kind_3."""
    asked = [Question(0, "which kind is it", a) for a in ("kind_3", "kind_3", "kind_4")]
    monkeypatch.setattr(vqa, "train_questions", lambda folder, most: asked if most else [])


@pytest.mark.parametrize("answers", ["", "free"])
def test_a_perfect_model_is_always_right(answers):
    split = fakes.asked(30, 5)
    result = _run(writer(split), split, answers=answers)
    e = result.metrics["accuracy"]
    assert (e.value, e.n, e.chance) == (1, 30, 0.2)
    assert e.above_chance
    assert e.low < 1
    for name in ("blind_accuracy", "majority_accuracy"):
        assert result.metrics[name].value < 0.5
    gain = result.metrics["gain_over_blind"]
    assert gain.low > 0.5
    assert result.metrics["accuracy_kind"].value == result.metrics["accuracy_sort"].value == 1
    assert (result.settings["questions"], result.settings["images"]) == (60, 30)


def test_a_blind_model_does_not_gain_by_looking():
    split = fakes.asked(60, 5)
    result = _run(writer(split, blind=True), split)
    gain = result.metrics["gain_over_blind"]
    assert gain.value == 0
    assert gain.low <= 0 <= gain.high
    assert not result.metrics["accuracy"].above_chance


def test_intervals_are_over_images_with_all_their_questions():
    split = fakes.asked(40, 4)
    split.images = [split.images[i % 8] for i in range(40)]  # five records an image
    result = _run(writer(split, perfect=False), split)
    assert result.metrics["accuracy"].n == 8
    assert result.settings["images"] == 8


def test_each_image_is_seen_once_and_equal_questions_are_asked_blindly_once():
    split = fakes.asked(30, 5)
    model = writer(split)
    _run(model, split, batch_size=7)
    assert model.model.images_seen == 30 + 1


def test_what_the_questions_alone_say_stands_beside(train):
    split = fakes.asked(50, 5)
    result = _run(writer(split), split)
    # "which kind is it" is answered by kind_3, right for a fifth; "of what sort" shares no word with it: kind_3 too
    assert result.metrics["question_only_accuracy"].value == pytest.approx(0.2, abs=0.03)
    assert result.settings["question_only_by"] == {"same question": 50, "most common answer": 50}
    assert result.settings["train_questions"] == 3
    assert result.metrics["gain_over_question_only"].low > 0
    assert result.settings["answers_from"] == "the answers of the train split"
    assert result.settings["answers_outside_the_list"] == 62, "only two of five kinds were ever an answer"
    assert result.metrics["accuracy"].value == pytest.approx(0.38)
    without = _run(writer(split), split, train_items=0)
    assert "question_only_accuracy" not in without.metrics


def test_artifacts_are_whole_and_json():
    split = fakes.asked(40, 5)
    split.images[3] = b"broken"
    result = _run(writer(split, perfect=False), split, True, pictures=4)
    assert from_json(to_json(result)).metrics == result.metrics
    found = json.loads(json.dumps(result.artifacts))
    assert result.settings["broken_images"]["count"] == 1
    assert result.settings["questions"] == 78
    assert np.array(found["confusion"]["matrix"]).sum() == 78
    assert np.trace(np.array(found["confusion"]["matrix"])) / 78 == pytest.approx(result.metrics["accuracy"].value)
    assert [row["name"] for row in found["by_question"]] == ["kind", "sort"]
    assert set(found["against"]) == {"blind"}
    assert len(found["answers_wrong"]) == 4
    assert not any(a["right"] for a in found["answers_wrong"])
    assert all(a["thumb"] and 0 <= a["confidence"] <= 1 for a in found["answers_wrong"])
    assert all(a["said"] == a["answer"] for a in found["answers_right"])
    assert len(result.items["questions"].keys) == 78


def _with_people(n):
    """Two questions an image; seven of ten people give the right answer, in words of their own, three another one."""
    split = fakes.asked(n, 5)
    for i, meta in enumerate(split._meta):
        meta["answers_of"] = [[f"A {a}."] * 7 + [f"kind_{(i + 1) % 5}"] * 3 for a in split.asked[i].values()]
        meta["question_types"] = ["which", "of what"]
    return split


def test_beside_many_peoples_answers_accuracy_is_theirs():
    split = _with_people(40)
    result = _run(writer(split), split, True)
    assert result.settings["accuracy_is"] == "official"
    assert result.settings["questions_that_people_answered"] == 80
    assert result.metrics["accuracy"].value == 1
    assert result.metrics["official_first_accuracy"].value < 0.2, "it left people their articles and capital letters"
    assert result.metrics["exact_accuracy"].value == 1
    assert result.metrics["lmms_eval_accuracy"].value == 1
    assert 0.2 < result.metrics["accuracy"].chance < 0.4, "one answer of five is right, one for three of ten people"
    assert result.metrics["accuracy"].above_chance
    table = result.items["questions"]
    for name in ("accuracy", "exact_accuracy", "lmms_eval_accuracy", "official_first_accuracy"):
        assert np.mean(table.values[name]) == pytest.approx(result.metrics[name].value)
    assert [r.name for r in result.figures[0].rows] == ["of what", "which"]
    exact = _run(writer(split), split, convention="exact")
    assert exact.settings["accuracy_is"] == "exact"
    assert exact.metrics["accuracy"].value == exact.metrics["accuracy"].chance * 5 == 1
    assert exact.metrics["official_accuracy"].value == 1


def test_an_answer_that_few_people_gave_is_right_in_part():
    split = _with_people(40)
    said = fakes.FakeSplit(
        split.images,
        split._captions,
        None,
        [dict.fromkeys(a, f"kind_{(i + 1) % 5}") for i, a in enumerate(split.asked)],
    )
    metrics = _run(writer(said), split).metrics
    both = [a == f"kind_{(i + 1) % 5}" for i, asked in enumerate(split.asked) for a in asked.values()]
    assert metrics["accuracy"].value == pytest.approx(np.where(both, 1, 0.9).mean())
    assert metrics["exact_accuracy"].value == np.mean(both)


def test_where_no_people_are_known_one_answer_stands_for_ten():
    split = fakes.asked(30, 5)
    official = _run(writer(split), split, convention="official").metrics
    exact = _run(writer(split), split).metrics
    assert official["accuracy"].value == exact["accuracy"].value == 1
    assert official["accuracy"].chance == pytest.approx(0.2)
    assert "exact_accuracy" not in official


def test_answers_come_from_a_file(tmp_path):
    path = tmp_path / "answers.txt"
    path.write_text("".join(f"kind_{i}\n" for i in range(8)))
    split = fakes.asked(30, 5)
    result = _run(writer(split), split, answers=str(path))
    assert result.metrics["accuracy"].chance == 1 / 8
    assert result.settings["answers_from"] == "answers.txt"


def test_errors_say_what_to_do():
    split = fakes.asked(4, 2)
    with pytest.raises(EvalError, match="vqa must be given a model with generate_text; got Embeds"):
        _run(fakes.model(), split)
    with pytest.raises(EvalError, match=r"records with questions and answers; got none among 5 of val.*easy_vqa"):
        _run(writer(split), fakes.pairs(5))
    split.images = [b"broken"] * 4
    with pytest.raises(EvalError, match="at least one readable image; got 4 broken"):
        _run(writer(split), split)


def test_a_packed_dataset_brings_its_train_split_and_its_answers(tmp_path):
    for name, count in (("train", 6), ("val", 3)):
        opened(tmp_path / name, tuple(asked(i) for i in range(count)))
    tars = {"train": {"00000.tar": 5, "00001.tar": 1}, "val": {"00000.tar": 3}}
    shards = {
        name: {"records": sum(of.values()), "shards": [{"name": t, "records": n} for t, n in of.items()]}
        for name, of in tars.items()
    }
    info = {"format": 1, "splits": shards, "fingerprint": "f", "seen": 9, "kept": 9, "captions": {"texts": 9}}
    (tmp_path / "dataset.json").write_text(json.dumps(info))
    assert [q.answer for q in train_questions(tmp_path, 2)] == list(ANSWERS) * 2
    assert len(train_questions(tmp_path, 100)) == 18
    assert train_questions(tmp_path, 0) == train_questions(tmp_path / "none", 9) == train_questions(None, 9) == []
    split = Dataset.open(tmp_path).split("val")
    result = _run(writer(fakes.pairs(1)), split)
    assert result.metrics["question_only_accuracy"].value == 1, "every third question has the same answer"
    assert result.settings["answers_from"] == "the answers of the train split"
    assert set(result.settings["answer_list"]) == set(ANSWERS)
    assert result.settings["question_only_by"] == {"same question": 9}


def contract_cases():
    def case(perfect, n):
        split = fakes.asked(n, 10)
        return Case(writer(split, perfect), split, {}, n)

    def with_people(perfect, n):
        split = _with_people(n)
        return Case(writer(split, perfect), split, {}, n)

    return {"writes": case, "many people": with_people}
