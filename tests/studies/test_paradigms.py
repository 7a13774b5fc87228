"""The study over all paradigms, in small: one that embeds, one that writes after a stage."""

import json
from pathlib import Path

import pytest

from diptych.core.errors import ConfigError
from diptych.studies import paradigms as module
from diptych.studies.paradigms import ParadigmsConfig, scaled, seconds_of
from diptych.train.config import RunConfig, TrainConfig
from tests.studies.tiny_clip import tiny_clip
from tests.train.staged import language_run, prefix_run
from tests.train.tiny_run import tiny_dataset

TRAIN = TrainConfig(samples_seen=64, global_batch=16, lr=1e-3)


def writes() -> RunConfig:
    before = language_run().replace(stage="language", train=TRAIN.replace(samples_seen=32))
    return prefix_run().replace(before=(before,), parts={"language": "stage:language"}, train=TRAIN)


def resolved(name: str, settings: list[str]) -> tuple[RunConfig, RunConfig]:
    run = {"clip:tiny": tiny_clip, "git:tiny": writes}[name]()
    run = run.replace(before=tuple(r.replace(recipe=f"{name}/{r.stage}") for r in run.before))
    return run, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("paradigms")
    path = str(tiny_dataset(folder / "one"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "resolve", resolved)
        config = ParadigmsConfig(
            data=(path,),
            split="val",
            recipes=("clip:tiny", "git:tiny"),
            samples_seen=96,
            minutes=0.002,
            items=8,
            label_field="",
            workers=0,
        )
        config.build().run(folder / "out")
    return path, folder / "out"


def test_every_paradigm_is_asked_the_same(finished: tuple[str, Path]) -> None:
    cells = {p.stem: json.loads(p.read_text()) for p in (finished[1] / "cells").iterdir()}
    assert set(cells) == {f"{n}-tiny-{b}-0" for n in ("clip", "git") for b in ("samples", "minutes")}
    assert len({tuple(c["captions"]) for c in cells.values()}) == 1
    assert set(cells["clip-tiny-samples-0"]["ranks"]) == {"cosine"}
    assert set(cells["git-tiny-samples-0"]["ranks"]) == {"likelihood", "less_text"}
    for cell in cells.values():
        for ranks in cell["ranks"].values():
            assert all(1 <= r <= 8 for side in ranks.values() for r in side)
        assert cell["seconds"] > 0
    assert cells["git-tiny-samples-0"]["samples_seen"] == pytest.approx(96, abs=16)


def test_the_table_has_both_budgets_and_a_row_a_way(finished: tuple[str, Path]) -> None:
    text = (finished[1] / "report.md").read_text()
    assert "### Equally many samples" in text
    assert "### Equally much training time" in text
    assert "| clip:tiny | cosine |" in text
    assert "| git:tiny | log p(text given picture) |" in text
    assert "|  | log p(text given picture), less log p(text) |" in text
    assert "| guessing |" in text
    numbers = json.loads((finished[1] / "results.json").read_text())
    rows = numbers["budgets"]["samples"]
    assert [r["recipe"] for r in rows] == ["clip:tiny", "git:tiny", "git:tiny"]
    assert rows[0]["against_first"] == {}
    assert set(rows[1]["against_first"]["zero_shot"]) == {"difference", "low", "high", "p_adjusted"}
    for row in rows:
        for value, low, high in row["metrics"].values():
            assert 0 <= low <= value <= high <= 1


def test_stages_share_a_budget_as_the_recipe_shares_it() -> None:
    run = scaled(writes(), 960.0)
    assert [r.train.samples_seen for r in (*run.before, run)] == [320, 640]
    assert scaled(writes(), 1.0).train.samples_seen == 16


def test_what_would_stop_the_judging_stops_the_study_before_it_trains(finished: tuple[str, Path]) -> None:
    asks = ParadigmsConfig(data=(finished[0],), split="val", recipes=("clip:tiny",), items=8)
    with pytest.raises(ConfigError, match=r"label_field must be a field .* got 'group'"):
        asks.build().plan()
    with pytest.raises(ConfigError, match="items must be at most"):
        asks.replace(items=5000, label_field="").build().plan()


def test_cells_that_were_judged_on_other_pictures_make_no_table(finished: tuple[str, Path]) -> None:
    cells = {p.stem: json.loads(p.read_text()) for p in (finished[1] / "cells").iterdir()}
    cells["clip-tiny-samples-0"]["captions"][0] = "another"
    with pytest.raises(ConfigError, match="must be judged on the same pictures"):
        ParadigmsConfig(items=8).build().report(cells)


def test_time_needs_the_rates_of_equal_samples() -> None:
    with pytest.raises(ConfigError, match="budgets must hold 'samples' where it holds 'minutes'"):
        ParadigmsConfig(budgets=("minutes",)).build()


def test_seconds_are_those_of_training_alone(tmp_path: Path) -> None:
    lines = [
        {"kind": "train", "samples_seen": 100, "samples_per_s": 50.0},
        {"kind": "eval", "samples_seen": 100},
        {"kind": "train", "samples_seen": 400, "samples_per_s": 100.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert seconds_of(tmp_path) == pytest.approx(5.0)
