"""Rare concepts: counted plainly, balanced sets beside random ones of the same size."""

from pathlib import Path

import pytest

from diptych.data.executors.executor import executor
from diptych.data.filters.balance import BalanceConfig
from diptych.data.selection import Selection
from diptych.studies.planted_balance import Concepts, balance_effect, balanced_and_random
from tests.data.curation_pools import packed_pool

CAPTIONS = [[f"red dog {i}"] for i in range(60)] + [["blue dog", "a bird"], ["blue dog too"], ["cat"], ["fox fox"]]
"""dog: 62 records, red: 60, blue: 2; what one record alone holds is no concept."""
CONFIG = BalanceConfig(t=5)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed_pool(tmp_path_factory.mktemp("balance") / "pool", CAPTIONS, per_shard=16)


def test_concepts_are_words_that_several_records_hold(pool: Path) -> None:
    found = Concepts(pool, CONFIG)
    assert found.counts == {"dog": 62, "red": 60, "blue": 2}
    assert found.kind(["a blue thing"]) == "tail"
    assert found.kind(["a red dog"]) == "head"
    assert found.kind(["a zebra"]) == ""


def test_a_set_is_described_by_what_its_records_hold(pool: Path) -> None:
    found = Concepts(pool, CONFIG)
    whole = found.described(list(found.of), (1, 3, 61))
    assert whole["tail records"] == pytest.approx(2 / 64)
    assert whole["head records"] == pytest.approx(62 / 64)
    assert (whole["1 or more"], whole["3 or more"], whole["61 or more"]) == (3, 2, 1)
    assert 2 < whole["evenness"] < 3
    reds = [uid for uid, held in found.of.items() if held >= {"red", "dog"}][:10]
    assert found.described(reds, (1,)) == {
        "tail records": 0.0,
        "head records": 1.0,
        "evenness": pytest.approx(2.0),
        "1 or more": 2.0,
    }


def test_both_sets_are_of_one_size_and_the_balanced_one_keeps_what_is_rare(pool: Path, tmp_path: Path) -> None:
    balanced, random = balanced_and_random(pool, CONFIG, tmp_path, executor(jobs=1))
    assert len(balanced) == len(random) < 64
    concepts = Concepts(pool, CONFIG)
    rare = Selection.of(uid for uid, held in concepts.of.items() if "blue" in held)
    assert len(rare) == 2
    assert (rare & balanced) == rare


def test_balancing_raises_the_share_of_rare_concepts(pool: Path, tmp_path: Path) -> None:
    found = balance_effect(pool, CONFIG, 6, (1, 2), tmp_path, executor(jobs=1))
    assert (found["records"], found["concepts"], found["tail_concepts"], found["draws"]) == (64, 3, 1, 6)
    row = found["measures"]["tail records"]
    assert row["balanced"] > row["pool"] > 0
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["difference"] == pytest.approx(row["balanced"] - row["random"])
    assert row["low"] > 0
    again = balance_effect(pool, CONFIG, 6, (1, 2), tmp_path, executor(jobs=1))
    assert again == found
