"""Selections combined in words: what sets, scores and draws say, and errors that teach."""

import json
from pathlib import Path

import numpy as np
import pytest

from diptych.core.errors import ConfigError, DataError
from diptych.data.candidates import CandidatePool, write_scores
from diptych.data.combine import combine, write_combination
from diptych.data.curate import CurationConfig, curate
from diptych.data.executors.executor import executor
from diptych.data.filters.caption_length import CaptionLengthConfig
from diptych.data.selection import Selection
from tests.data.curation_pools import all_rows, packed_pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A pool of 11 with scores 0..10 ("rank"), equal ones ("flat") and one that is missing a number ("gap")."""
    folder = tmp_path_factory.mktemp("combine")
    data = packed_pool(folder / "d", [[f"number {i}"] for i in range(11)])
    pool, n = CandidatePool(data), 0
    for rows in all_rows(data):
        ranks = np.arange(n, n + len(rows), dtype=float)
        write_scores(pool, "rank", rows, ranks)
        write_scores(pool, "flat", rows, np.minimum(ranks, 5))
        write_scores(pool, "gap", rows, np.where(ranks == 10, np.nan, ranks))
        n += len(rows)
    for name, some in {"a": range(0, 6), "b": range(4, 9), "c": (0, 5)}.items():
        uids_of(data, some).save(folder / f"{name}.npy")
    curate(data, CurationConfig(filters=(CaptionLengthConfig(max_words=5),)), folder / "cur", executor("pool", 1))
    return folder


def uids_of(data: Path, numbers) -> Selection:
    return Selection(CandidatePool(data).dataset.split("train").uids()[list(numbers)])


def said(folder: Path, line: str) -> set[int]:
    """The numbers of the records that a line of words selects."""
    words = [str(folder / w) if (folder / w).exists() else w for w in line.split()]
    found = combine(words).selection
    return set(np.flatnonzero(found.holds(CandidatePool(folder / "d").dataset.split("train").uids())).tolist())


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("a.npy", {0, 1, 2, 3, 4, 5}),
        ("a.npy and b.npy", {4, 5}),
        ("a.npy or b.npy minus c.npy", {1, 2, 3, 4, 6, 7, 8}),
        ("a.npy or [ b.npy minus c.npy ]", set(range(9))),
        ("( a.npy or b.npy ) minus ( b.npy and c.npy )", set(range(9)) - {5}),
        ("cur minus a.npy", {6, 7, 8, 9, 10}),
        ("all of d minus a.npy", {6, 7, 8, 9, 10}),
        ("top 0.3 by rank of d", {7, 8, 9, 10}),  # DataComp: at least the floor(11 * 0.3) = 3rd, from 0
        ("top 1.0 by rank of d", set(range(11))),
        ("top 3 by rank of d", {8, 9, 10}),
        ("top 0.1 by flat of d", {5, 6, 7, 8, 9, 10}),  # ties stay
        ("top 2 by gap of d", {8, 9}),  # no number, no place
        ("a.npy top 2 by rank of d", {4, 5}),
        ("a.npy top 2 by rank of d or c.npy", {0, 4, 5}),
    ],
)
def test_words_say_which_stay(folder, line, numbers) -> None:
    assert said(folder, line) == numbers


def test_an_exact_top_breaks_ties_by_uid(folder) -> None:
    uids = CandidatePool(folder / "d").dataset.split("train").uids()
    best = sorted(range(5, 11), key=lambda i: uids[i].tobytes())[:2]
    assert said(folder, "top 2 by flat of d") == set(best)


def test_samples_are_seeded_and_nested(folder) -> None:
    few, more = said(folder, "all of d sample 3 seed=1"), said(folder, "all of d sample 0.5 seed=1")
    assert len(few) == 3
    assert len(more) == 5
    assert few < more
    assert said(folder, "all of d sample 5") != said(folder, "all of d sample 5 seed=3")


def test_the_folder_says_how_it_came_about(folder, tmp_path) -> None:
    words = [str(folder / "cur"), "minus", str(folder / "c.npy"), "sample", "4", "seed=2"]
    found = combine(words)
    write_combination(found, tmp_path / "out")
    kept = Selection.load(tmp_path / "out")
    about = json.loads((tmp_path / "out" / "combination.json").read_text())
    assert len(kept) == about["kept"] == 4
    assert about["selection"] == kept.fingerprint
    assert about["words"] == words
    assert [s["records"] for s in about["steps"]] == [11, 9, 4]
    assert [s["step"] for s in about["steps"]] == [words[0], f"minus {words[2]}", "sample 4 seed=2"]
    assert [i["records"] for i in about["inputs"]] == [11, 2]
    assert about["inputs"][0]["pool"]["fingerprint"] == CandidatePool(folder / "d").dataset.fingerprint
    assert "sample 4 seed=2" in str(found)
    with pytest.raises(ConfigError, match="must be a new folder"):
        write_combination(found, tmp_path / "out")
    again = combine([str(tmp_path / "out")]).selection  # a combination is a selection
    assert again == kept


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("", ConfigError, "must go on with a selection; got the end"),
        ("a.npy b.npy", ConfigError, "must go on with and, or, minus, sample or top after"),
        ("a.npy and", ConfigError, "must go on with a selection after"),
        ("and a.npy", ConfigError, "must go on with a selection; got 'and'"),
        ("[ a.npy or b.npy", ConfigError, "a closing bracket"),
        ("a.npy ]", ConfigError, "must go on with and, or"),
        ("top many by rank of d", ConfigError, "got 'many'"),
        ("top 1.5 by rank of d", ConfigError, "got '1.5'"),
        ("top 12 by rank of d", ConfigError, "at most the 11 records"),
        ("top 3 of d", ConfigError, "must go on with by"),
        ("top 3 by clip of d", DataError, "scores called 'clip'"),
        ("a.npy sample 7", ConfigError, "at most the 6 records"),
        ("a.npy sample 2 seed=x", ConfigError, "a seed must be a whole number"),
        ("d", ConfigError, "Say: all of"),
        ("nowhere", DataError, "is not there"),
        ("all of nowhere", DataError, "a dataset must be a folder"),
        ("a.npy minus a.npy top 1 by rank of d", DataError, "they are of none of it"),
    ],
)
def test_what_is_wrong_is_said(folder, line, error, words) -> None:
    with pytest.raises(error, match=words.replace("(", r"\(")):
        said(folder, line)


def test_nothing_is_no_selection(folder, tmp_path) -> None:
    found = combine([str(folder / "a.npy"), "minus", str(folder / "a.npy")])
    with pytest.raises(ConfigError, match="must leave at least one record"):
        write_combination(found, tmp_path / "out")
    assert not (tmp_path / "out").exists()
