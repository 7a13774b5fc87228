import json
import random

import numpy as np
import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import EvalError
from diptych.data.corpora.scenes import ScenesConfig
from diptych.evals.captioning import CaptioningConfig
from diptych.evals.chair import ChairConfig
from diptych.evals.object_words import COCO
from diptych.evals.statistics import paired_difference
from diptych.evals.vqa import VqaConfig
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer
from tests.reference.chair import chair

OBJECTS = ("dog", "cat", "car", "bus", "boat", "bench", "kite", "bowl", "cake", "bed")


def _split(n, objects=OBJECTS, seed=0):
    """Pictures with two objects each, and captions that name them."""
    draws = random.Random(seed)
    there = [draws.sample(objects, 2) for _ in range(n)]
    said = [(f"a {a} and a {b} number {i % 9}",) for i, (a, b) in enumerate(there)]
    return fakes.FakeSplit([fakes.picture(i) for i in range(n)], said, [{"objects": o} for o in there])


def _saying(split, say):
    """The model that writes say(i, caption) of each image of `split`."""
    said = [(say(i, split.captions(i)[0]),) for i in range(len(split))]
    return writer(fakes.FakeSplit(split.images, said, split._meta))


def _run(model, split, artifacts=False, **settings):
    return ChairConfig(**settings).build().run(model, split, artifacts)


def test_who_names_what_is_there_invents_nothing():
    split = _split(40)
    metrics = _run(writer(split), split).metrics
    assert metrics["chair_s"].value == metrics["chair_i"].value == 0
    assert metrics["object_recall"].value == 1
    for name in ("chair_s", "chair_i", "object_recall"):
        assert metrics[name].above_chance, name
        assert metrics[name].low < metrics[name].high, "forty images prove nothing"
    assert metrics["chair_s"].chance > 0.8
    assert not metrics["chair_s"].higher_is_better


def test_a_model_that_invents_one_object_is_found_and_by_captioning_hardly():
    split = _split(60)
    clean = writer(split)
    invents = _saying(split, lambda i, c: c + (" near a zebra" if i % 2 else ""))
    mine, theirs = (_run(m, split, True) for m in (invents, clean))
    assert mine.metrics["chair_s"].value == 0.5
    assert mine.metrics["chair_i"].value == pytest.approx(30 / 150)
    a, b = (np.array(r.items["images"].values["chair_s"]) for r in (mine, theirs))
    test = paired_difference(a, b)
    assert test.verdict(higher_is_better=False) == "worse"
    assert mine.metrics["object_recall"] == theirs.metrics["object_recall"], "what is there is named all the same"
    rows = {r[0]: r for r in mine.figures[1].rows}
    assert rows["zebra"][1:4] == ("30", "30", "100.0%")
    assert rows["dog"][2] == "0"
    cider = CaptioningConfig().build().run(invents, split, False).metrics["cider"]
    assert cider.above_chance, "the captions are as people's, but for three words"


def test_a_blind_model_however_fluent_is_at_chance():
    split = _split(60)
    metrics = _run(writer(split, blind=True), split).metrics
    for name in ("chair_s", "chair_i", "object_recall"):
        assert not metrics[name].above_chance, name


def test_who_says_nothing_of_objects_is_told_from_who_says_nothing_false():
    split = _split(30)
    result = _run(_saying(split, lambda i, c: f"a picture number {i}"), split, True)
    assert result.metrics["chair_s"].value == 0
    assert not result.metrics["chair_s"].above_chance, "dealt out to wrong images it is no worse"
    e = result.metrics["chair_i"]
    assert (e.value, e.low, e.high, e.chance) == (0, 0, 1, None), "of no mention nothing is known"
    assert result.metrics["object_recall"].value == result.metrics["captions_with_objects_share"].value == 0
    assert result.settings["captions_without_objects"] == 30


def test_what_people_name_is_there_and_synonyms_count(tmp_path):
    split = _split(30)
    split._captions = [(*c, "a man on a horse") for c in split._captions]
    says = _saying(split, lambda i, c: c + " with a man")
    assert _run(says, split).metrics["chair_s"].value == 0, "without synonyms a man is no object"
    path = tmp_path / "synonyms.txt"
    path.write_text("person, man\ndog, puppy\n")
    assert _run(says, split, synonyms=str(path)).metrics["chair_s"].value == 0, "people say that there is one"
    split._captions = [c[:1] for c in split._captions]
    assert _run(says, split, synonyms=str(path)).metrics["chair_s"].value == 1


def test_equals_the_plain_count():
    split = _split(50)
    draws = random.Random(3)
    model = _saying(split, lambda i, c: " ".join(draws.choices([*OBJECTS, "the", "on"], k=draws.randint(1, 6))))
    result = _run(model, split)
    said = model.caption([split.image_bytes(i) for i in range(50)])
    slow = chair([c.split() for c in said], [set(m["objects"]) for m in split._meta], {o: o for o in COCO})
    assert (result.metrics["chair_i"].value, result.metrics["chair_s"].value) == pytest.approx(slow)


def test_questions_about_other_things_do_not_notice():
    """VQA of the same model: what it answers has nothing to do with what it invents."""
    split = _split(30)
    invents = _split(30)
    invents._captions = [(f"{c[0]} near a zebra",) for c in split._captions]
    invents.asked = split.asked = [{"what is it": m["objects"][0]} for m in split._meta]
    assert VqaConfig().build().run(writer(invents), split, False).metrics["accuracy"].value == 1


def test_shapes_of_scenes_are_objects():
    records = list(ScenesConfig(size=30, resolution=16).build().records())
    said = [tuple(c.lower() for c in r.segments[1].texts) for r in records]
    split = fakes.FakeSplit([fakes.picture(i) for i in range(30)], said, [r.meta for r in records])
    result = _run(writer(split), split, True)
    assert result.metrics["chair_s"].value == 0
    assert result.metrics["object_recall"].value > 0.9
    wrong = _run(writer(split, perfect=False), split)
    assert wrong.metrics["chair_s"].value > 0.5


def test_figures_are_whole_and_json():
    split = _split(30)
    split.images[4] = b"broken"
    split._meta[5] = {}
    result = _run(writer(split, perfect=False), split, True, pictures=5)
    assert from_json(to_json(result)).figures == result.figures
    assert json.dumps(result.settings)
    assert (result.settings["images"], result.settings["broken_images"]["count"]) == (28, 1)
    assert result.settings["images_without_objects_in_meta"] == 1
    assert result.settings["objects"] == 80
    assert len(result.figures[2].pictures) == 5
    assert all("not there: " in p.detail for p in result.figures[2].pictures)


def test_errors_and_reasons():
    split = _split(6)
    assert ChairConfig().unsuited(writer(split), split) == ""
    assert "names no objects" in ChairConfig().unsuited(writer(split), fakes.told(4))
    assert "generate_text" in ChairConfig().unsuited(fakes.model(), split)
    with pytest.raises(EvalError, match="meta names objects; got none among 4 of val"):
        _run(writer(split), fakes.told(4))
    with pytest.raises(EvalError, match="chair must be given a model with generate_text"):
        _run(fakes.model(), split)


def contract_cases():
    def case(perfect, n):
        split = _split(min(n, 120))
        return Case(writer(split, perfect), split, {}, min(n, 120))

    return {"writes": case}
