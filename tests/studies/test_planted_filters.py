"""What filters find is counted as the truth has it; the exact ones find all of their fault and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from diptych.data.candidates import CandidatePool, write_scores
from diptych.data.executors.executor import executor
from diptych.data.vectors import write_vectors
from diptych.studies.planted_filters import AIMS, ALL, MODELS, curations, guessed, judge_filters, tally
from diptych.studies.planted_pool import PlantedPoolConfig, build_pool, read_truth
from tests.studies.planted_data import clean_dataset


def _row(fault: str, picture: str, how: str = "") -> dict[str, str]:
    return {"fault": fault, "how": how, "picture_of": picture, "captions_of": ""}


TRUTH = {
    "c1": _row("clean", "1"),
    "c2": _row("clean", "2"),
    "c3": _row("clean", "3"),
    "e1": _row("exact_copy", "1", "equal"),
    "n2": _row("near_copy", "2", "cropped"),
    "m4": _row("mismatched", "4"),
    "m5": _row("mismatched", "5"),
    "b6": _row("boilerplate", "6", "button"),
    "l7": _row("leaked", "7", "equal"),
}


def test_a_pair_is_found_by_either_of_its_two() -> None:
    assert tally(TRUTH, ["e1"])["found"]["exact_copy"] == [1, 1]
    found = tally(TRUTH, ["c1", "m4", "c3"])
    assert found["found"] == {
        "mismatched": [1, 2],
        "exact_copy": [1, 1],
        "near_copy": [0, 1],
        "boilerplate": [0, 1],
        "leaked": [0, 1],
    }
    assert found["lost"] == [1, 3]  # c3; c1's copy stays
    assert (found["seen"], found["dropped"]) == (9, 3)
    assert found["ways"]["near_copy: cropped"] == [0, 1]
    assert "mismatched: " not in found["ways"]


def test_what_is_dropped_is_found_or_lost() -> None:
    found = tally(TRUTH, list(TRUTH))
    assert found["lost"] == [3, 3]  # of a pair that is dropped whole, one half should have stayed
    assert sum(hits for hits, _ in found["found"].values()) + found["lost"][0] == found["dropped"] == 9


def test_guessing_hits_a_pair_by_one_of_two() -> None:
    assert guessed(30, 100, "mismatched") == pytest.approx(0.3)
    assert guessed(30, 100, "near_copy") == pytest.approx(0.51)
    rng, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        hits += bool((rng.permutation(100)[:30] < 2).any())
    assert hits / 2000 == pytest.approx(guessed(30, 100, "exact_copy"), abs=0.03)  # 0.5085 of a pool of 100


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool whose "model" knows the truth: it scores captions of others low, and has one vector a picture."""
    folder = tmp_path_factory.mktemp("planted")
    made = build_pool(clean_dataset(folder / "clean"), folder / "pool", PlantedPoolConfig(leaked=0.03), jobs=1)
    truth, opened = read_truth(made), CandidatePool(made)
    pictures = {row["picture_of"]: i for i, row in enumerate(truth.values())}
    for shard in opened.shards:
        rows = opened.rows(shard)
        mine = [truth[uid] for uid in rows.table["uid"].to_pylist()]
        write_scores(opened, "model", rows, _low(mine, "mismatched", truth))
        write_vectors(opened, "model", rows, np.eye(len(truth))[[pictures[r["picture_of"]] for r in mine]])
    return made


def _low(rows: list[dict[str, str]], fault: str, truth: dict[str, dict[str, str]]) -> np.ndarray:
    """1 for each record, but below 0 for those with that fault, each another number."""
    places = {row["picture_of"]: i for i, row in enumerate(truth.values())}
    return np.array([-1.0 - places[r["picture_of"]] if r["fault"] == fault else 1.0 for r in rows])


def test_filters_find_what_they_are_for(pool: Path) -> None:
    truth = read_truth(pool)
    found = judge_filters(pool, truth, curations("model", "model", 0.7), pool.parent / "curations", executor(jobs=1))
    assert list(found) == list(AIMS)
    assert set(MODELS) < set(AIMS)
    assert found["exact_duplicates"]["found"]["exact_copy"] == [13, 13]
    assert found["exact_duplicates"]["dropped"] == 13
    hits, of = found["decontaminate"]["found"]["leaked"]
    assert of == 4
    assert found["decontaminate"]["ways"]["leaked: equal"] == [2, 2]
    assert found["decontaminate"]["dropped"] == hits
    for fault in ("exact_copy", "near_copy"):  # the vectors are the truth
        assert found["semantic_duplicates"]["found"][fault] == [13, 13]
    assert found["semantic_duplicates"]["lost"][0] == 0
    assert found["near_duplicates"]["found"]["exact_copy"] == [13, 13]
    assert found["near_duplicates"]["found"]["near_copy"][0] > 0
    assert found["near_duplicates"]["lost"][0] == 0
    kinds = found["boilerplate"]["ways"]
    for kind in ("address", "file name", "camera"):
        hits, of = kinds.get(f"boilerplate: {kind}", [0, 0])
        assert hits == of
    assert found["boilerplate"]["found"]["mismatched"][0] == 0
    # of 130 the 91 best and what ties with the next one: 91 are clean in what they say, the next is the best of 39
    assert found["score"]["found"]["mismatched"] == [38, 39]
    assert found["score"]["dropped"] == 38
    assert found[ALL]["found"]["exact_copy"] == [13, 13]
    assert found[ALL]["found"]["mismatched"][0] > 15
    assert found[ALL]["dropped"] > 38


def test_clean_records_that_go_are_shown_with_their_reason(pool: Path, tmp_path: Path) -> None:
    truth, opened = read_truth(pool), CandidatePool(pool)
    for shard in opened.shards:
        rows = opened.rows(shard)
        mine = [truth[uid] for uid in rows.table["uid"].to_pylist()]
        write_scores(opened, "turned", rows, _low(mine, "clean", truth))
    chosen = {"score": curations("turned", "model", 0.7)["score"]}
    found = judge_filters(pool, truth, chosen, tmp_path, executor(jobs=1))["score"]
    assert found["lost"][0] > 0
    assert found["examples"]
    assert all(reason == "low_score" and said for reason, said in found["examples"])
