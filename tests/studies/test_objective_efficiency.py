import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.studies import objective_efficiency
from diptych.studies.objective_efficiency import OBJECTIVES, ObjectiveEfficiencyConfig
from tests.train.tiny_run import tiny_dataset


def tiny(*data: Path, **changes) -> ObjectiveEfficiencyConfig:
    plain = {
        "data": tuple(map(str, data)),
        "items": 10,
        "samples_seen": 64,
        "points": 2,
        "global_batch": 16,
        "widths": (8, 16),
        "width": 16,
        "heads": 1,
        "workers": 0,
        "bootstrap": 20,
    }
    return ObjectiveEfficiencyConfig(**plain | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Path]:
    """(data, out) of the whole study in small."""
    folder = tmp_path_factory.mktemp("efficiency")
    data = tiny_dataset(folder / "data")
    tiny(data).build().run(folder / "out")
    return data, folder / "out"


def test_every_cell_is_measured_and_all_is_written(finished):
    _, out = finished
    assert {p.stem for p in (out / "cells").iterdir()} == {f"{name}-0" for name in OBJECTIVES}
    numbers = json.loads((out / "results.json").read_text())
    assert numbers["samples_seen"] == [32, 64]
    assert numbers["chance"] == {"zero_shot": 0.1, "recall_at_1": 0.1, "recall_at_10": 1.0}
    assert set(numbers["factors"]["zero_shot"]) == {
        "bag_of_words over captioner", "contrastive over bag_of_words", "contrastive over captioner",
    }  # fmt: skip
    for name in OBJECTIVES:
        curve = numbers["curves"]["zero_shot"][name]
        assert np.shape(curve) == (1, 2)
        assert 0 <= min(curve[0]) <= max(curve[0]) <= 1
        assert numbers["curves"]["recall_at_10"][name] == [[1.0, 1.0]]  # of ten
    text = (out / "report.md").read_text()
    assert "transformer captioner" in text
    assert (out / "zero_shot.svg").read_text().startswith("<svg")


def test_all_have_one_tower_one_order_and_one_optimizer(finished):
    data, _ = finished
    cells = {cell.name: cell.run for cell in tiny(data, seeds=2).build().plan()}
    assert list(cells)[:3] == ["captioner-0", "bag_of_words-0", "contrastive-0"]
    first, *others = [cells[f"{name}-1"] for name in OBJECTIVES]
    for other in others:
        assert (other.train, other.data, other.tokenizer) == (first.train, first.data, first.tokenizer)
        assert other.model.image == first.model.image
        assert other.model.image_format == first.model.image_format
    assert first.train.seed == 1
    text, decoder = cells["contrastive-0"].model.text, first.model.language
    assert (text.width, text.depth, text.heads) == (decoder.width, decoder.depth, decoder.heads)


def test_what_is_done_is_not_done_again(finished, monkeypatch):
    data, out = finished
    trained: list[int] = []
    monkeypatch.setattr(
        objective_efficiency, "train", lambda config, *a, **k: trained.append(config.train.samples_seen)
    )
    before = (out / "results.json").read_text()
    tiny(data).build().run(out)
    assert trained == []
    assert (out / "results.json").read_text() == before
    (out / "cells" / "captioner-0.json").unlink()
    (out / "runs" / "captioner-0" / "ranks-64.json").unlink()
    tiny(data).build().run(out)
    assert trained == [64]  # only the point that was lost
    assert (out / "results.json").read_text() == before


def test_two_datasets_are_mixed_by_their_sizes(finished, tmp_path):
    data, _ = finished
    other = tiny_dataset(tmp_path / "other", copies=1)
    run = tiny(data, other).build().plan()[0].run
    assert [(p.path, p.weight) for p in run.data.mixture] == [(str(data), 40.0), (str(other), 20.0)]


def test_ranks_are_strict_and_go_both_ways():
    scores = torch.tensor([[3.0, 1.0, 0.0], [2.0, 2.0, 5.0], [0.0, 9.0, 7.0]])
    assert objective_efficiency._both_ways(scores) == {"names": [1, 3, 2], "pictures": [1, 2, 1]}


def test_too_many_items_are_refused(finished, tmp_path):
    data, _ = finished
    with pytest.raises(ConfigError, match="items must be at most as many"):
        tiny(data, items=30).build().run(tmp_path / "out")
