"""The same promises over every eval of the folder: perfect is 1, random is chance, and both say how sure they are.

The test of an eval, ``test_<name>.py``, holds ``contract_cases() -> dict[str, contract.Maker]``: by kind of model.
"""

import importlib
import json

import pytest

from diptych.core.config import from_json, to_json
from diptych.evals import find
from diptych.report import run_page
from tests.evals import fakes
from tests.evals.fake_writer import writer


def _makers(name):
    return importlib.import_module(f"tests.evals.test_{name}").contract_cases()


def _first(name, perfect, n):
    return next(iter(_makers(name).values()))(perfect, n)


@pytest.mark.parametrize("name,kind", [(name, kind) for name in find.names() for kind in _makers(name)])
def test_perfect_is_best_and_random_is_chance(name, kind):
    case = _makers(name)[kind](True, 60)
    config = find.config_for(name, **case.settings)
    assert from_json(to_json(config)) == config
    task = config.build()
    head = task.run(case.model, case.split, False).metrics[task.headline]
    assert (head.value, head.n) == (pytest.approx(task.best), case.n)
    assert head.above_chance
    case = _makers(name)[kind](False, 300)
    random = task.run(case.model, case.split, False).metrics[task.headline]
    assert random.low <= random.chance <= random.high
    assert not random.above_chance


@pytest.mark.parametrize("name", ["zero_shot", "retrieval"])
def test_a_model_that_writes_and_sees_nothing_falls_to_chance_without_its_prior(name):
    split = (fakes.labelled if name == "zero_shot" else lambda n, _: fakes.pairs(n))(60, 10)
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
    case = _first(name, False, 40)
    task = find.config_for(name, **case.settings).build()
    result = task.run(case.model, case.split, True)
    assert task.headline in result.metrics
    assert (result.task, result.split, result.fingerprint) == (name, "val", "f" * 8)
    assert result == task.run(case.model, case.split, True)
    assert all(e.low <= e.value <= e.high for e in result.metrics.values())
    plain = task.run(case.model, case.split, False)
    assert (plain.artifacts, plain.figures, plain.metrics) == ({}, (), result.metrics)


@pytest.mark.parametrize("name", find.names())
def test_what_each_item_brought_adds_up_to_the_metric(name):
    case = _first(name, False, 40)
    result = find.config_for(name, **case.settings).build().run(case.model, case.split, True)
    for table in result.items.values():
        assert len(set(table.keys)) == len(table.keys)
        assert table.clusters is None or len(table.clusters) == len(table.keys)
        for metric, values in table.values.items():
            assert len(values) == len(table.keys)
            assert sum(values) / len(values) == pytest.approx(result.metrics[metric].value)


@pytest.mark.parametrize("name", find.names())
def test_the_report_draws_every_result(name):
    case = _first(name, False, 40)
    result = find.config_for(name, **case.settings).build().run(case.model, case.split)
    page = run_page._result(json.loads(to_json(result)))
    assert page.count("<h3>") > 1
    assert page.count("<figure") + page.count("<table") > 1
