"""The study in small: a pool is built once, every filter is judged, and a report stands at the end."""

import json
from functools import partial
from pathlib import Path

import pytest

from diptych.core.config import override
from diptych.core.errors import ConfigError
from diptych.studies import planted_faults as module
from diptych.studies.planted_faults import PlantedFaultsConfig
from diptych.studies.planted_filters import AIMS
from diptych.studies.planted_pool import PlantedPoolConfig, read_truth
from tests.studies.planted_data import clean_dataset
from tests.studies.tiny_clip import tiny_clip


def config(base: Path) -> PlantedFaultsConfig:
    return PlantedFaultsConfig(
        data=(str(base),),
        faults=PlantedPoolConfig(leaked=0.03),
        samples_seen=64,
        points=2,
        balanced_samples=32,
        draws=2,
        at_least=(1, 2),
        workers=0,
        jobs=1,
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_dataset(tmp_path_factory.mktemp("faults") / "clean")


def test_the_plan_builds_the_pool_and_names_the_runs(base: Path) -> None:
    study = config(base).build()
    study._out = base.parent / "planned"
    cells = study.plan()
    assert [c.name for c in cells] == ["clip-32-0", "clip-64-0", "balanced-0", "random-0"]
    assert {c.run.data.path for c in cells} == {str(study.pool)}
    assert [c.run.train.samples_seen for c in cells] == [32, 64, 32, 32]
    assert [bool(c.run.data.selection) for c in cells] == [False, False, True, True]
    assert len(read_truth(study.pool)) == 130
    assert study.plan() == cells
    alone = config(base).replace(train_balanced=False, seeds=2).build()
    alone._out = study._out
    assert [c.name for c in alone.plan()] == ["clip-32-0", "clip-64-0", "clip-32-1", "clip-64-1"]


def test_one_clean_dataset_with_tests_is_wanted(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data must be one dataset, whose records are clean; got 2"):
        config(base).replace(data=(str(base), str(base))).build().run(tmp_path / "two")
    asked = override(config(base), ["faults.duplicates=0.45"])
    assert isinstance(asked, PlantedFaultsConfig)
    with pytest.raises(ConfigError, match="must leave a clean record for each copy"):
        asked.build().run(tmp_path / "many")


@pytest.mark.slow
def test_the_whole_study_in_small(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.clip, "tiny", partial(tiny_clip, 16))
    found = config(base).build().run(tmp_path / "out")
    for title in ("What is found", "what it is for", "how a fault was made", "trained on this pool", "Balanced sampl"):
        assert title in found.text
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(numbers["filters"]) == list(AIMS)
    assert numbers["filters"]["exact_duplicates"]["aim"]["recall"][0] == 1
    assert numbers["filters"]["exact_duplicates"]["aim"]["precision"][0] == 1
    assert [row["samples_seen"] for row in numbers["scores"]] == [32, 64]
    assert set(numbers["trained"]["rows"]) >= {"all R@1", "tail R@1"}
    assert "Trained on the balanced" in found.text
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "cells").iterdir()}
    assert config(base).build().run(tmp_path / "out").text == found.text
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "cells").iterdir()} == before
