"""The same promises over every eval of the folder: perfect is 1, random is chance, and both say how sure they are."""

import json

import pytest

from diptych.core.config import from_json, to_json
from diptych.evals import find
from diptych.report import run_page
from tests.evals import fakes


def _split(name, n):
    return fakes.labelled(n, 10) if name == "zero_shot" else fakes.pairs(n)


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
@pytest.mark.parametrize("name", find.names())
def test_perfect_is_one_and_random_is_chance(name, kind):
    config = find.config_for(name, **({"templates": "plain"} if name == "zero_shot" else {}))
    assert from_json(to_json(config)) == config
    task = config.build()
    perfect = task.run(fakes.model(kind, by_label=name == "zero_shot"), _split(name, 60), False)
    head = perfect.metrics[task.headline]
    assert (head.value, head.n) == (1, 60)
    assert head.above_chance
    random = task.run(fakes.model(kind, perfect=False), _split(name, 300), False).metrics[task.headline]
    assert random.low <= random.chance <= random.high
    assert not random.above_chance


@pytest.mark.parametrize("name", find.names())
def test_results_are_complete_and_seeded(name):
    task = find.config_for(name).build()
    model = fakes.model(perfect=False)
    result = task.run(model, _split(name, 40), True)
    assert task.headline in result.metrics
    assert (result.task, result.split, result.fingerprint) == (name, "val", "f" * 8)
    assert result == task.run(model, _split(name, 40), True)
    assert all(e.low <= e.value <= e.high for e in result.metrics.values())
    assert task.run(model, _split(name, 40), False).artifacts == {}


@pytest.mark.parametrize("name,headings", [("retrieval", 6), ("zero_shot", 6)])
def test_the_report_draws_every_result(name, headings):
    result = find.config_for(name).build().run(fakes.model(perfect=False), _split(name, 40))
    page = run_page._result(json.loads(to_json(result)))
    assert page.count("<h3>") == headings
    assert page.count("<figure") > 1
