"""Curated against raw, in small: what is trained on what, what is kept, what is told, and that it goes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.core.config import from_json
from diptych.core.errors import ConfigError
from diptych.data.selection import Selection
from diptych.studies import curation as module
from diptych.studies.curation import CurationStudyConfig
from diptych.train.config import RunConfig
from tests.studies.curated_pool import BAD, GOOD, LEAKED, TEST, curated_pool
from tests.studies.tiny_clip import tiny_clip


def resolved(name: str, settings: list[str]) -> tuple[RunConfig, RunConfig]:
    assert name == "clip:tiny"
    run = tiny_clip()
    return run, run.replace(data=run.data.replace(path=settings[0].removeprefix("data=")))


def config(folder: Path, **settings: Any) -> CurationStudyConfig:
    recipe = folder / "long.toml"
    recipe.write_text('[[filter]]\nname = "caption_length"\nmin_words = 2\n')
    curations = ("raw", str(recipe), f"{recipe}+score")
    own = {"curations": curations, "samples_seen": 96, "workers": 0, "jobs": 1, "fraction": 0.5}
    return CurationStudyConfig(data=(str(folder / "pool"),), **{**own, **settings})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curation")
    curated_pool(folder / "pool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "resolve", resolved)
        config(folder).build().run(folder / "out")
    return folder


def cells(folder: Path) -> dict[str, Any]:
    return {p.stem: json.loads(p.read_text()) for p in (folder / "out" / "cells").iterdir()}


def test_each_curation_is_trained_on_what_it_keeps_with_equally_many_samples(finished: Path) -> None:
    found = cells(finished)
    kept = {"pool-raw": GOOD + BAD, "pool-long": GOOD, "pool-long_score": GOOD // 2 + 1}  # the threshold stays
    assert {name: c["kept"] for name, c in found.items()} == {f"{n}-{s}": k for n, k in kept.items() for s in (0, 1)}
    for name, cell in found.items():
        run = from_json((finished / "out" / "runs" / name / "config.json").read_text())
        assert (cell["samples_seen"], cell["of"]) == (96, GOOD + BAD)
        assert run.train.samples_seen == 96
        assert run.train.seed == cell["seed"]
        if cell["curation"] == "raw":
            assert run.data.selection == ""
        else:
            assert len(Selection.load(run.data.selection)) == cell["kept"]
    reasons = {(d["reason"], d["count"]) for d in found["pool-long_score-0"]["dropped"]}
    assert reasons == {("short_caption", BAD), ("low_score", GOOD // 2 - 1)}


def test_the_scores_are_of_the_raw_model_of_the_same_seed_and_the_dataset_is_left_alone(finished: Path) -> None:
    assert not (finished / "pool" / "scores").exists()
    scores = finished / "out" / "pools" / "pool" / "scores"
    assert sorted(p.name for p in scores.iterdir()) == ["raw-0", "raw-1"]
    models = {json.loads((scores / f"raw-{s}" / "about.json").read_text())["model"] for s in (0, 1)}
    assert len(models) == 2
    selections = sorted(p.name for p in (finished / "out" / "selections").iterdir())
    assert selections == ["pool-long", "pool-long_score-0", "pool-long_score-1"]


def test_all_are_judged_on_the_same_pictures_none_of_which_is_a_copy(finished: Path) -> None:
    judged = [c["judged"]["ways"] for c in cells(finished).values()]
    assert all(w[way]["keys"] == judged[0][way]["keys"] for w in judged for way in w)
    assert len(judged[0]["i2t"]["keys"]) == TEST - LEAKED
    assert all(c["copies"] == LEAKED for c in cells(finished).values())


def test_the_report_has_intervals_differences_and_reasons(finished: Path) -> None:
    text = (finished / "out" / "report.md").read_text()
    assert f"{TEST - LEAKED} images of test (left out: 2 as copies of training images" in text
    assert "| raw | 100.0% | 2.0 |" in text
    assert f"| {GOOD / (GOOD + BAD):.1%} | 2.4 |" in text
    assert f"{BAD} short_caption (1 caption_length)" in text
    rows = json.loads((finished / "out" / "results.json").read_text())["datasets"]["pool"]
    assert [r["curation"].rpartition("/")[2] for r in rows] == ["raw", "long.toml", "long.toml+score"]
    assert rows[0]["against_raw"] == {}
    guesses = [f"{rows[0]['metrics'][m]['chance']:.1%}" for m in rows[0]["metrics"]]
    assert f"| guessing | | | {' | '.join(guesses)} |" in text
    for row in rows[1:]:
        for metric, found in row["against_raw"].items():
            means = [np.mean(r["metrics"][metric]["by_seed"]) for r in (row, rows[0])]
            assert found["difference"] == pytest.approx(means[0] - means[1])
            assert found["low"] <= found["difference"] <= found["high"]
            assert found["p_value"] <= found["p_adjusted"] <= 1


def test_it_goes_on_and_refuses_cells_of_other_pictures(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = finished / "out" / "cells" / "pool-long_score-1.json"
    said = json.loads(gone.read_text())
    gone.unlink()
    monkeypatch.setattr(module, "resolve", resolved)
    config(finished).build().run(finished / "out")
    again = json.loads(gone.read_text())
    assert again["judged"] == said["judged"]
    assert again["dropped"] == said["dropped"]
    cell = json.loads((finished / "out" / "cells" / "pool-raw-0.json").read_text())
    cell["judged"]["ways"]["i2t"]["keys"][0] = "another"
    other = cells(finished) | {"pool-raw-0": cell}
    with pytest.raises(ConfigError, match="must be judged on the same pictures"):
        config(finished).build().report(other)


def test_mistakes_are_found_before_anything_is_trained(finished: Path) -> None:
    with pytest.raises(ConfigError, match="of which the first is 'raw'"):
        CurationStudyConfig(curations=("house:default", "raw")).build()
    with pytest.raises(ConfigError, match="must be different ones"):
        CurationStudyConfig(curations=("raw", "score", "score")).build()
    with pytest.raises(ConfigError, match="Did you mean 'house:default'"):
        CurationStudyConfig(curations=("raw", "house:defualt+score")).build()
    with pytest.raises(ConfigError, match="split must be one that is not trained on"):
        config(finished, split="train").build().plan()
