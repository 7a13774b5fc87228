"""A suite runs what suits, names what does not, and computes nothing twice: not after a stop, not by another task."""

from pathlib import Path

import pytest

from diptych.core.errors import ConfigError, EvalError
from diptych.evals import suite
from diptych.evals.eval import EvalResult
from diptych.evals.find import config_for, read_result
from tests.evals import fakes
from tests.evals.suite_ranks import OneSplit, run_together


@pytest.fixture
def data(tmp_path):
    """Forty pictures of ten kinds in a csv, as people have them."""
    split = fakes.labelled(40, 10)
    rows = ["image,caption,label"]
    for i in range(len(split)):
        (tmp_path / f"{i}.png").write_bytes(split.image_bytes(i))
        rows.append(f"{i}.png,{split.captions(i)[0]},{split.meta(i)['label']}")
    (tmp_path / "things.csv").write_text("\n".join(rows) + "\n")
    return str(tmp_path / "things.csv")


def _model(kind=fakes.Embeds):
    return fakes.model(kind, True, by_label=True)


def _tasks(data, names=("retrieval", "zero_shot"), options=("templates=plain",)):
    return suite.named(names, [data], "", options).tasks


def test_what_suits_is_planned_and_the_rest_is_named_with_its_reason(data):
    found = suite.plan(_model(), "quick", [data])
    planned = {task.name.removesuffix("-quick") for task in found.tasks}
    assert {"retrieval", "zero_shot"} <= planned
    left_out = {one.name: one.why for one in found.left_out}
    assert left_out["vqa"] == "the model has no generate_text"
    assert not planned & set(left_out)
    assert all(task.split == "test" and task.config.data == data for task in found.tasks)
    assert next(t.config.max_items for t in found.tasks if t.name == "retrieval-quick") == 1000
    full = suite.plan(_model(), "full", [data], options=["max_items=7"])
    assert {t.config.max_items for t in full.tasks} == {7}


def test_nothing_is_computed_twice(data, tmp_path):
    model = _model()
    first = list(suite.run(model, _tasks(data), tmp_path))
    assert [o.known for o in first] == [False, False]
    assert model.memory.computed["image"] == 40
    again = _model()
    assert [o.known for o in suite.run(again, _tasks(data), tmp_path)] == [True, True]
    assert again.memory.computed == {}
    changed = list(suite.run(again, _tasks(data, options=("templates=plain", "k=[1,3]")), tmp_path))
    assert sorted((o.task.name, o.known) for o in changed) == [("retrieval", False), ("zero_shot", True)]
    assert again.memory.computed == {}
    assert [o.known for o in suite.run(again, _tasks(data), tmp_path, again=True)] == [False, False]
    assert again.memory.computed == {}


def test_other_weights_data_or_settings_are_another_result(data):
    task, model = _tasks(data)[0], _model()
    key = suite.key_of(model, task)
    assert suite.key_of(_model(), _tasks(data)[0]) == key
    model.fingerprint = "0" * 8
    assert suite.key_of(model, task) != key
    assert suite.key_of(_model(), task._replace(config=task.config.replace(seed=1))) != key
    other = OneSplit(fakes.labelled(40, 10), fingerprint="1" * 32)
    assert suite.key_of(_model(), task._replace(dataset=other)) != key
    (Path(data).parent / "templates.txt").write_text("a {}\n")
    assert suite.key_of(_model(), _tasks(data)[0]) != key
    (Path(data).parent / "templates.txt").unlink()
    moved = task._replace(config=task.config.replace(data="elsewhere"))
    assert suite.key_of(_model(), moved) == key


def test_a_suite_that_was_broken_off_goes_on(data, tmp_path):
    running = suite.run(_model(), _tasks(data), tmp_path)
    assert next(running).task.name == "retrieval"
    running.close()
    assert [(o.task.name, o.known) for o in suite.run(_model(), _tasks(data), tmp_path)] == [
        ("retrieval", True),
        ("zero_shot", False),
    ]


def test_one_that_cannot_be_run_does_not_stop_the_others(data, tmp_path):
    tasks = _tasks(data, ("zero_shot", "retrieval"), ("templates=plain", "label_field=absent"))
    with pytest.raises(EvalError, match="absent"):
        list(suite.run(_model(), tasks, tmp_path))
    outcomes = list(suite.run(_model(), tasks, tmp_path, keep_going=True))
    assert "must have 'absent' in its meta" in outcomes[0].error
    assert outcomes[1].result is not None


def test_a_file_names_its_tasks(data, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[task]]\neval = "zero_shot"\ntemplates = "plain"\n'
        '[[task]]\neval = "zero_shot"\nlabel = "words"\ntemplates = ["a {}", "one {}"]\nsplit = "test"\n'
    )
    tasks = suite.plan(_model(), str(file), [data]).tasks
    assert [t.name for t in tasks] == ["zero_shot", "zero_shot-words"]
    outcomes = list(suite.run(_model(), tasks, tmp_path))
    assert [o.path.name for o in outcomes] == ["zero_shot-test.json", "zero_shot-words-test.json"]
    assert isinstance(read_result(outcomes[1].path), EvalResult)
    assert all(o.known for o in suite.run(_model(), tasks, tmp_path))


@pytest.mark.parametrize(
    "text,words",
    [
        ("", r"must hold at least one \[\[task\]\]"),
        ('[[task]]\ndata = "x"\n', r"must hold at least one \[\[task\]\]"),
        ("[[task", "must be quick or full, or a TOML file"),
        ('[[task]]\neval = "zero_shott"\n', "Did you mean 'zero_shot'"),
        ('[[task]]\neval = "zero_shot"\ncolour = 1\n', "got 'colour'"),
    ],
)
def test_a_file_that_is_wrong_is_said(data, tmp_path, text, words):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        suite.plan(_model(), str(file), [data])


def test_no_data_and_options_without_effect_are_said(data, tmp_path):
    with pytest.raises(ConfigError, match="must be given data; got none"):
        suite.plan(_model(), "full", [])
    file = tmp_path / "mine.toml"
    file.write_text('[[task]]\neval = "zero_shot"\n')
    with pytest.raises(ConfigError, match="must have data; it names none"):
        suite.plan(_model(), str(file), [])
    with pytest.raises(ConfigError, match="got 'colour', which would have no effect"):
        _tasks(data, options=("colour=1",))
    with pytest.raises(ConfigError, match="must be quick or full, or a TOML file of tasks"):
        suite.plan(_model(), "complete", [data])


@pytest.mark.dist
def test_processes_share_the_tasks_and_embed_each_image_once(tmp_path):
    did = run_together(tmp_path)
    assert sorted(name for one in did for name in one["tasks"]) == ["retrieval", "zero_shot"]
    assert [one["images"] for one in did] == [20, 20]
    alone = list(suite.run(_model(), _tasks_alone(), tmp_path / "alone"))
    for outcome in alone:
        shared = read_result(tmp_path / "evals" / outcome.path.name)
        found = read_result(outcome.path).metrics
        assert list(shared.metrics) == list(found)
        for name, e in shared.metrics.items():  # vectors mapped from disk lie elsewhere: products round otherwise
            assert (e.value, e.low, e.high) == pytest.approx(
                (found[name].value, found[name].low, found[name].high), abs=1e-6
            )


def _tasks_alone():
    data = OneSplit(fakes.labelled(40, 10))
    configs = [config_for("retrieval", data="d"), config_for("zero_shot", data="d", templates="plain")]
    return [suite.Task(c, data, "val") for c in configs]
