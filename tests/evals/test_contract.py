"""The same promises over every eval of the folder: perfect is 1, random is chance, and both say how sure they are."""

import json

import pytest

from diptych.core.config import from_json, to_json
from diptych.evals import find
from diptych.report import run_page
from tests.evals import fakes
from tests.evals.fake_writer import writer

WRITES = ("vqa", "captioning")
"""Evals of models that write."""


def _split(name, n):
    if name == "captioning":
        return fakes.told(n, captions=1)
    return {"zero_shot": fakes.labelled, "vqa": fakes.asked}.get(name, lambda n, _: fakes.pairs(n))(n, 10)


def _model(name, kind, split, perfect):
    if kind == "writes":
        return writer(split, perfect)
    return fakes.model(kind, perfect, by_label=perfect and name == "zero_shot")


def _cases():
    kinds = {name: ["writes"] if name in WRITES else [fakes.Embeds, fakes.Scores, "writes"] for name in find.names()}
    return [(name, kind) for name in find.names() for kind in kinds[name]]


@pytest.mark.parametrize("name,kind", _cases())
def test_perfect_is_best_and_random_is_chance(name, kind):
    config = find.config_for(name, **({"templates": "plain"} if name == "zero_shot" else {}))
    assert from_json(to_json(config)) == config
    task = config.build()
    split = _split(name, 60)
    head = task.run(_model(name, kind, split, True), split, False).metrics[task.headline]
    assert (head.value, head.n) == (pytest.approx(task.best), 60)
    assert head.above_chance
    split = _split(name, 100 if kind == "writes" and name != "vqa" else 300)
    random = task.run(_model(name, kind, split, False), split, False).metrics[task.headline]
    assert random.low <= random.chance <= random.high
    assert not random.above_chance


@pytest.mark.parametrize("name", ["zero_shot", "retrieval"])
def test_a_model_that_writes_and_sees_nothing_falls_to_chance_without_its_prior(name):
    split = _split(name, 60)
    settings = {"templates": "plain"} if name == "zero_shot" else {}
    for more in ({"text_prior": "removed"}, {"text_prior": "removed", "per_token": True}):
        task = find.config_for(name, **settings, **more).build()
        sighted = task.run(writer(split), split, False)
        assert sighted.metrics[task.headline].value == 1
        assert sighted.settings["text_prior"] == "removed"
        assert sighted.settings["scored_by"] == "log_likelihood"
        blind = task.run(writer(split, blind=True), split, False).metrics[task.headline]
        assert not blind.above_chance


@pytest.mark.parametrize("name", find.names())
def test_results_are_complete_and_seeded(name):
    task = find.config_for(name).build()
    model = _model(name, "writes" if name in WRITES else fakes.Embeds, _split(name, 40), False)
    result = task.run(model, _split(name, 40), True)
    assert task.headline in result.metrics
    assert (result.task, result.split, result.fingerprint) == (name, "val", "f" * 8)
    assert result == task.run(model, _split(name, 40), True)
    assert all(e.low <= e.value <= e.high for e in result.metrics.values())
    assert task.run(model, _split(name, 40), False).artifacts == {}


@pytest.mark.parametrize("name,headings", [("retrieval", 6), ("zero_shot", 6), ("vqa", 6), ("captioning", 4)])
def test_the_report_draws_every_result(name, headings):
    split = _split(name, 40)
    model = _model(name, "writes" if name in WRITES else fakes.Embeds, split, False)
    result = find.config_for(name).build().run(model, split)
    page = run_page._result(json.loads(to_json(result)))
    assert page.count("<h3>") == headings
    assert page.count("<figure") > 1
