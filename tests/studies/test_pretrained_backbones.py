import json
from pathlib import Path

import pytest

from diptych.recipes import lit
from diptych.studies import pretrained_backbones as module
from diptych.studies.pretrained_backbones import RECIPES, PretrainedBackbonesConfig
from tests.studies.tiny_clip import tiny_clip
from tests.train.tiny_run import tiny_dataset


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """(datasets, out) of the whole study in small: the image tower of one is locked, and read from tables."""
    folder = tmp_path_factory.mktemp("backbones")
    paths = [str(tiny_dataset(folder / "one")), str(tiny_dataset(folder / "two", copies=3))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "lit", lambda: tiny_clip(freeze=("image",)))
        patch.setitem(RECIPES, "clip", tiny_clip)
        study = PretrainedBackbonesConfig(data=tuple(paths), split="val", workers=0, seeds=2).build()
        study.run(folder / "out")
    return paths, folder / "out"


def test_both_are_judged_on_the_same_pictures(finished: tuple[list[str], Path]) -> None:
    _, out = finished
    cells = {p.stem: json.loads(p.read_text()) for p in (out / "cells").iterdir()}
    assert set(cells) == {"lit-0", "clip-0", "lit-1", "clip-1"}
    assert len({tuple(c["captions"]) for c in cells.values()}) == 1
    for cell in cells.values():
        assert set(cell["hits"]) == {"t2i_recall_at_1", "t2i_recall_at_5", "i2t_recall_at_1"}  # there are no labels
        assert {len(h) for h in cell["hits"].values()} == {20}
    numbers = json.loads((out / "results.json").read_text())
    for row in numbers["recipes"].values():
        for value, low, high in row["metrics"].values():
            assert 0 <= low <= value <= high <= 1
    assert set(numbers["lit_less_clip"]["i2t_recall_at_1"]) >= {"difference", "p_value", "verdict"}


def test_the_table_names_both_and_chance(finished: tuple[list[str], Path]) -> None:
    text = (finished[1] / "report.md").read_text()
    assert "| CLIP from scratch | 64 |" in text
    assert "| guessing |" in text
    assert "- image to text R@1: " in text


def test_both_learn_from_all_records_alike(finished: tuple[list[str], Path]) -> None:
    paths, _ = finished
    study = PretrainedBackbonesConfig(data=tuple(paths), samples_seen=1000).build()
    cells = {cell.name: cell.run for cell in study.plan()}
    first, second = cells["lit-0"], cells["clip-0"]
    assert first.data.mixture == second.data.mixture
    assert [part.weight for part in first.data.mixture] == [40.0, 60.0]
    assert first.data.path == paths[1]
    assert first.train.samples_seen == second.train.samples_seen == 1000
    assert first.tokenizer == lit.tiny().tokenizer
    assert set(module.METRICS) >= {"acc_at_1"}
