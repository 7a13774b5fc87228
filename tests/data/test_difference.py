"""Differences: datasets, selections and curations, in any pairing."""

import json
from pathlib import Path

import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.curate import CurationConfig, curate
from diptych.data.dataset import Dataset
from diptych.data.difference import difference, told
from diptych.data.executors.executor import executor
from diptych.data.filters.caption_length import CaptionLengthConfig
from diptych.data.pack import PackConfig, pack
from diptych.data.selection import Selection
from diptych.data.sources.source import FromRecords
from tests.data.pictures import png

CAPTIONS = ["one", "one two", "one two three", "one two three four", "a b c d e"]


def packed(folder: Path, said: list[tuple[int, str, str]]) -> Path:
    """A dataset of (number of the picture, caption, split)."""
    made = [Record.pair(f"k{i}", png(i), "png", (text,), meta={"split": split}) for i, text, split in said]
    pack(FromRecords(lambda: made), folder, PackConfig(tokenizer="none", records_per_shard=2, jobs=1))
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """Datasets a and b; curations of a: short (at most 3 words), long (at least 3), of b: more; a selection s.npy."""
    folder = tmp_path_factory.mktemp("diff")
    a = packed(folder / "a", [(i, text, "train") for i, text in enumerate(CAPTIONS)])
    b = [(0, "one", "test"), (1, "one two", "train"), (2, "three", "train"), (7, "new", "train")]
    packed(folder / "b", b)
    for name, data, config in (
        ("short", "a", CaptionLengthConfig(max_words=3)),
        ("long", "a", CaptionLengthConfig(min_words=3, max_words=4)),
        ("other", "a", CaptionLengthConfig(max_words=2)),
        ("more", "b", CaptionLengthConfig()),
    ):
        splits = ("train",)
        curation = CurationConfig(filters=(config,), splits=splits)
        curate(folder / data, curation, folder / name, executor("pool", 1))
    uids = Dataset.open(a).split("train").uids()
    Selection(uids[:2]).save(folder / "s.npy")
    return folder


def test_datasets_differ_in_records_captions_and_splits(sets) -> None:
    found = difference(sets / "a", sets / "b")
    assert (found["both"], found["only_one"], found["only_other"]) == (2, 3, 2)
    assert found["captions"]["changed"] == 1
    assert found["captions"]["examples"] == [{"key": "k2", "one": ["one two three"], "other": ["three"]}]
    assert found["splits_changed"] == [{"one": "train", "other": "test", "count": 1}]
    said = told(found)
    assert "'one two three' -> 'three'" in said
    assert "1 train -> test" in said
    assert json.loads(json.dumps(found)) == found


def test_curations_differ_by_reason(sets) -> None:
    found = difference(sets / "short", sets / "long")
    assert (found["one"]["what"], found["both"], found["only_one"], found["only_other"]) == ("curation", 1, 2, 1)
    assert found["dropped_by_other"] == {"caption_length: short_caption": 2}
    assert found["dropped_by_one"] == {"caption_length: long_caption": 1}
    assert found["reasons_changed"] == []  # the fifth is too long for both
    assert "2 B: caption_length: short_caption" in told(found)


def test_reasons_that_changed_are_counted(sets) -> None:
    found = difference(sets / "other", sets / "long")
    assert found["reasons_changed"] == []
    found = difference(sets / "a", sets / "short")
    assert found["dropped_by_other"] == {"caption_length: long_caption": 2}
    assert "captions" not in found


def test_what_a_curation_never_saw_is_said(sets) -> None:
    found = difference(sets / "a", sets / "more")
    assert found["dropped_by_other"] == {"not_in_its_pool": 4}  # of b's train, one record is a's too


def test_selections_differ_in_numbers_alone(sets) -> None:
    found = difference(sets / "s.npy", sets / "short")
    assert (found["both"], found["only_one"], found["only_other"]) == (2, 0, 1)
    assert found["one"]["what"] == "selection"
    assert "dropped_by_one" not in found
    same = difference(sets / "a", sets / "a")
    assert (same["both"], same["only_one"], same["captions"]["changed"]) == (5, 0, 0)


def test_two_filters_that_drop_for_different_reasons(sets, tmp_path) -> None:
    uids = Dataset.open(sets / "a").split("train").uids()
    filters = (CaptionLengthConfig(max_words=1), CaptionLengthConfig(min_words=9))
    curate(sets / "a", CurationConfig(filters=filters), tmp_path / "none", executor("pool", 1))
    found = difference(tmp_path / "none", sets / "long")
    assert found["reasons_changed"] == [
        {"one": "caption_length: long_caption", "other": "caption_length: short_caption", "count": 1}
    ]
    assert np.array_equal(Selection.load(tmp_path / "none").pairs, Selection(uids[:0]).pairs)


def test_what_is_not_there_is_said(sets) -> None:
    with pytest.raises(DataError, match="is not there"):
        difference(sets / "a", sets / "nothing")
