import json

import numpy as np
import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import EvalError
from diptych.core.seeds import fold
from diptych.data.corpora.scenes import ScenesConfig
from diptych.evals.chair import ChairConfig
from diptych.evals.object_words import COCO
from diptych.evals.pope import PopeConfig, ask_of
from diptych.evals.statistics import paired_difference
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer
from tests.evals.test_chair import OBJECTS
from tests.evals.test_chair import _split as _pictures


def _run(model, split, artifacts=False, **settings):
    return PopeConfig(**settings).build().run(model, split, artifacts)


def _told(split, answer, names=OBJECTS, template="Is there a {} in the image?"):
    """A model that answers answer(i, object) to the question about each object, and captions as the split says."""
    asked = [{template.format(o): answer(i, o) for o in names} for i in range(len(split))]
    return writer(fakes.FakeSplit(split.images, split._captions, split._meta, asked))


def _made(n):
    """Pictures whose meta names objects, all of them of OBJECTS (and an eleventh, so that they are not COCO's 80)."""
    split = _pictures(n)
    split._meta[0]["objects"] = [*split._meta[0]["objects"], "griffin"]
    return split


NAMES = (*OBJECTS, "griffin")


def _truly(split):
    return lambda i, o: "yes" if o in split._meta[i]["objects"] else "no"


@pytest.mark.parametrize("asked_by", ["writing", "answers"])
def test_who_sees_answers_all_questions_rightly(asked_by):
    split = _made(40)
    result = _run(_told(split, _truly(split), NAMES), split, asked_by=asked_by)
    assert result.settings["questions_from"] == "made: Is there {a} in the image?"
    for name in ("accuracy", "f1", "precision", "recall", "balanced_accuracy", "lmms_eval_accuracy", "lmms_eval_f1"):
        assert result.metrics[name].value == 1, name
    assert result.metrics["yes_share"].value == 0.5
    assert result.metrics["accuracy"].chance == 0.5
    assert result.metrics["accuracy"].above_chance
    assert {f"accuracy_{c}" for c in ("random", "popular", "adversarial")} <= set(result.metrics)
    assert result.metrics["gain_over_blind"].low > 0


def test_a_model_that_sees_one_thing_everywhere_is_found_and_by_its_captions_not():
    split = _made(60)
    clean, sees = (
        _run(_told(split, answer, NAMES), split, True)
        for answer in (_truly(split), lambda i, o: "yes" if o == "dog" else _truly(split)(i, o))
    )
    a, b = ([*r.items["questions"].values["accuracy"]] for r in (sees, clean))
    test = paired_difference(np.array(a), np.array(b), np.array(clean.items["questions"].clusters))
    assert test.verdict() == "worse"
    assert sees.metrics["yes_share"].value > 0.52
    assert sees.metrics["precision"].high < 1
    assert sees.metrics["recall"].value == 1
    row = sees.figures[2].rows[0]
    assert row[0] == "Is there a dog in the image?"
    assert row[1] != row[2] != "0"
    captions = ChairConfig().build().run(writer(split), split, False)
    assert captions.metrics["chair_s"].value == 0, "what it writes of pictures names only what is there"


def test_a_fluent_model_that_sees_nothing_does_not_gain():
    split = _made(20)
    for word in ("yes", "no"):
        metrics = _run(_told(split, lambda i, o, word=word: word, NAMES), split).metrics
        for name in ("accuracy", "f1", "balanced_accuracy"):
            assert not metrics[name].above_chance, (word, name)
    asked = [dict.fromkeys((f"Is there a {o} in the image?" for o in NAMES), "yes") for _ in range(20)]
    blind = writer(fakes.FakeSplit(split.images, split._captions, split._meta, asked), blind=True)
    gain = _run(blind, split).metrics["gain_over_blind"]
    assert gain.value == 0
    assert gain.low <= 0 <= gain.high


def _given(n):
    split = fakes.FakeSplit(
        [fakes.picture(i) for i in range(n)],
        [() for _ in range(n)],
        [{"category": ("random", "popular")[i % 2]} for i in range(n)],
        [{f"is it thing {i}": "yes", "is it blue": "no", "what is it": "thing"} for i in range(n)],
    )
    return split


def test_the_datas_own_questions_come_first():
    split = _given(30)
    result = _run(writer(split), split)
    assert result.settings["questions_from"] == "the data's own (segments)"
    assert result.settings["questions_asked"] == 60
    assert result.metrics["accuracy"].value == 1
    assert result.metrics["accuracy"].n == 30
    assert {"accuracy_random", "f1_popular"} <= set(result.metrics)
    assert _run(writer(split), split, questions="given").metrics == result.metrics


def test_scenes_are_asked_in_their_own_words():
    records = list(ScenesConfig(size=12, resolution=16).build().records())
    split = fakes.FakeSplit([fakes.picture(i) for i in range(12)], [("x",)] * 12, [r.meta for r in records])
    found = ask_of(split, range(12), PopeConfig())
    assert found.source == "made: is there {a}?"
    assert sum(q.answer == "yes" for q in found.asked) * 2 == len(found.asked)
    given = ask_of(split, range(12), PopeConfig(questions="given"))
    assert given.source == "the data's own (meta)"
    assert {q.answer for q in given.asked} == {"yes", "no"}


def test_an_image_is_seen_once_and_a_question_asked_once():
    split = _made(20)
    model = _told(split, _truly(split), NAMES)
    _run(model, split, batch_size=7)
    distinct = len({(q.place, q.question) for q in ask_of(split, range(20), PopeConfig()).asked})
    asked = len(ask_of(split, range(20), PopeConfig()).asked)
    assert distinct < asked
    assert model.model.images_seen < 60


def test_coco_names_are_all_eighty():
    split = _pictures(30)
    asked = ask_of(split, range(30), PopeConfig()).asked
    absent = {q.question for q in asked if q.answer == "no" and q.sort == "random"}
    assert len(absent) > len(OBJECTS), "also those that are in no picture"
    assert any(f"Is there a {o} in the image?" in absent for o in COCO if o not in OBJECTS)


def test_figures_are_whole_and_json():
    split = _made(30)
    split.images[3] = b"broken"
    result = _run(_told(split, lambda i, o: "maybe", NAMES), split, True, pictures=4)
    assert from_json(to_json(result)).figures == result.figures
    assert json.dumps(result.settings)
    assert result.settings["broken_images"]["count"] == 1
    assert result.settings["images"] == 29
    assert result.metrics["unparsed_share"].value == 1
    assert result.metrics["yes_share"].value == 1, "the original parser takes what is not no for yes"
    assert len(result.figures[3].pictures) == 4


def test_errors_and_reasons():
    split = _made(6)
    model = _told(split, _truly(split), NAMES)
    assert PopeConfig().unsuited(model, split) == ""
    assert "no questions with yes or no" in PopeConfig().unsuited(model, fakes.told(4))
    assert "generate_text" in PopeConfig().unsuited(fakes.model(), split)
    with pytest.raises(EvalError, match=r"pope must be given questions.*got neither among 4 records of val"):
        _run(model, fakes.told(4))
    with pytest.raises(EvalError, match=r"got neither.*questions=given"):
        _run(model, split, questions="given")
    split.images = [b"broken"] * 6
    with pytest.raises(EvalError, match="at least one readable image; got 6 broken"):
        _run(model, split)


def contract_cases():
    def case(perfect, n):
        n = min(n, 150)
        split = _made(n)
        answer = _truly(split)
        model = _told(split, answer if perfect else (lambda i, o: ("yes", "no")[hash_of(i, o) % 2]), NAMES)
        return Case(model, split, {}, n)

    return {"writes": case}


def hash_of(i, o):
    """A coin for an image and an object."""
    return fold("coin", i, o) >> 7
