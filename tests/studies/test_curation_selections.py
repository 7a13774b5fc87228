"""What is compared: words to filters, the raw model's files in a place of their own, the selection."""

import json
from pathlib import Path

import pytest

from diptych.checkpoints.native import save_pretrained
from diptych.core.errors import ConfigError
from diptych.data.curations import house
from diptych.data.dataset import Dataset
from diptych.data.filters.decontaminate import DecontaminateConfig
from diptych.data.filters.near_duplicates import NearDuplicatesConfig
from diptych.data.filters.score import ScoreConfig
from diptych.data.filters.semantic_duplicates import SemanticDuplicatesConfig
from diptych.data.selection import Selection
from diptych.studies.curation_selections import Strictness, curation_of, file_name, select, view_of, with_own
from tests.studies.curated_pool import LEAKED, curated_pool
from tests.studies.tiny_clip import tiny_clip

STRICT = Strictness(eps=0.1, fraction=0.5)


def test_words_stand_for_filters_one_behind_the_other() -> None:
    found = curation_of("house:default+duplicates+score", STRICT).filters
    duplicates = (NearDuplicatesConfig(), DecontaminateConfig(), SemanticDuplicatesConfig(vectors="raw_model", eps=0.1))
    score = ScoreConfig(score="raw_model", fraction=0.5)
    assert found == (*house.default().filters, *duplicates, score)
    assert curation_of("score", STRICT).filters == (score,)
    with pytest.raises(ConfigError, match="must be the name of one"):
        curation_of("", STRICT)


def test_a_curation_of_other_splits_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('splits = ["train", "val"]\n[[filter]]\nname = "caption_length"\n')
    with pytest.raises(ConfigError, match=r"must be of the split train; .* is of train, val"):
        curation_of(str(mine), STRICT)


def test_what_the_raw_model_says_has_a_name_by_the_seed() -> None:
    config, asked = with_own(curation_of("house:default+duplicates", STRICT), "raw-3")
    assert asked == {"vectors"}
    assert config.filters[-1] == SemanticDuplicatesConfig(vectors="raw-3", eps=0.1)
    config, asked = with_own(curation_of("score", STRICT), "raw-3")
    assert asked == {"score"}
    assert with_own(house.default(), "raw-3") == (house.default(), set())


def test_a_view_holds_all_that_the_dataset_does_and_takes_what_is_new(tmp_path: Path) -> None:
    data = curated_pool(tmp_path / "pool")
    (data / "scores" / "clip").mkdir(parents=True)
    (data / "scores" / "clip" / "train-00000.parquet").write_text("of others")
    view = view_of(data, tmp_path / "view")
    assert view_of(data, view) == view
    assert Dataset.open(view).fingerprint == Dataset.open(data).fingerprint
    assert (view / "scores" / "clip" / "train-00000.parquet").read_text() == "of others"
    (view / "scores" / "raw-0").mkdir()
    assert [p.name for p in (data / "scores").iterdir()] == ["clip"]


def test_copies_of_held_out_images_and_the_worst_go(tmp_path: Path) -> None:
    data = curated_pool(tmp_path / "pool")
    opened = Dataset.open(data)
    model = tiny_clip().model.build(opened.tokenizer().vocab_size)
    save_pretrained(tmp_path / "model", model, opened.tokenizer())
    view = view_of(data, tmp_path / "view")
    config, asked = with_own(curation_of("duplicates+score", STRICT._replace(eps=0.0)), "raw-0")
    report = select(view, config, asked, tmp_path / "model", "raw-0", tmp_path / "chosen", 1)
    reasons = {reason: n for (_, reason), n in report.dropped.items()}
    assert reasons["exact_copy_of_view_test"] == LEAKED
    assert 0.4 < report.kept / (report.seen - sum(n for r, n in reasons.items() if r != "low_score")) < 0.6
    assert len(Selection.load(tmp_path / "chosen")) == report.kept
    for kind in ("scores", "vectors"):
        assert not (data / kind).exists()
        assert json.loads((view / kind / "raw-0" / "about.json").read_text())["data"] == opened.fingerprint


def test_names_of_files() -> None:
    assert file_name("house:default+score") == "house_default_score"
    assert file_name("some/where/mine.toml") == "mine"
    assert file_name("some/mine.toml+score") == "mine_score"
