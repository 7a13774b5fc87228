"""MetaCLIP's balancing beside a plain reading of it."""

from collections import Counter

import numpy as np
import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool
from diptych.data.filters.balance import Balance, BalanceConfig
from tests.data.curation_pools import packed_pool

CAPTIONS = (
    [["a dog on grass"]] * 1
    + [[f"a photo of a dog, number {i}"] for i in range(60)]
    + [[f"the red panda {i}"] for i in range(3)]
    + [[f"nothing known {i}"] for i in range(4)]
    + [["two texts: a dog", f"and a red panda {i}!"] for i in range(4)]
)
ENTRIES = ["dog", "red panda", "grass", "red", "Photo"]


def settled(pool: CandidatePool, config: BalanceConfig) -> Balance:
    made = config.build()
    everyone = [np.ones(pool.records_of(s), dtype=bool) for s in pool.shards]
    made.settle(
        iter([made.gather(pool.rows(s), a) for s, a in zip(pool.shards, everyone, strict=True)]), pool, pool.path
    )
    return made


def plain_matches(captions: list[str]) -> set[str]:
    """The authors' rule: an entry with a space on both sides is in the text, whose marks are set apart."""
    found = set()
    for text in captions:
        for mark in ",.;:?!`":
            text = text.replace(mark, f" {mark} ")
        text = f" {text.lower()} "
        while "  " in text:
            text = text.replace("  ", " ")
        found |= {e.lower() for e in ENTRIES if f" {e.lower()} " in text}
    return found


@pytest.fixture
def pool(tmp_path) -> CandidatePool:
    return CandidatePool(packed_pool(tmp_path / "d", CAPTIONS, per_shard=20))


@pytest.fixture
def config(tmp_path) -> BalanceConfig:
    path = tmp_path / "entries.txt"
    path.write_text("\n".join(ENTRIES) + "\n")
    return BalanceConfig(entries=str(path), t=5)


def test_chances_are_those_of_the_plain_reading(pool, config) -> None:
    made = settled(pool, config)
    counts = Counter(e for c in CAPTIONS for e in plain_matches(c))
    assert counts["dog"] == 65
    for captions in CAPTIONS:
        matched = plain_matches(captions)
        expected = 1 - np.prod([1 - 5 / max(counts[e], 5) for e in matched]) if matched else None
        assert made.chance(captions) == (None if expected is None else pytest.approx(expected))


def test_the_rare_stay_and_the_common_are_thinned(pool, config) -> None:
    made = settled(pool, config.replace(entries=config.entries))
    said = [r for s in pool.shards for r in made.reasons(pool.rows(s), np.ones(pool.records_of(s), dtype=bool))]
    assert said[0] == ""  # grass is rare
    assert said[64:68] == ["unmatched"] * 4
    assert 0 < sum(not r for r in said[1:61]) < 30
    assert set(said) == {"", "balanced_out", "unmatched"}
    again = settled(pool, config.replace(seed=1))
    other = [r for s in pool.shards for r in again.reasons(pool.rows(s), np.ones(pool.records_of(s), dtype=bool))]
    assert other != said


def test_about_t_of_an_entry_are_kept(tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", [[f"dog {i}x"] for i in range(300)], per_shard=100))
    (tmp_path / "e.txt").write_text("dog\n")
    kept = []
    for seed in range(20):
        made = settled(pool, BalanceConfig(entries=str(tmp_path / "e.txt"), t=60, seed=seed))
        kept.append(sum(not r for s in pool.shards for r in made.reasons(pool.rows(s), np.ones(100, dtype=bool))))
    assert abs(np.mean(kept) - 60) < 4 * (300 * 0.2 * 0.8 / 20) ** 0.5


def test_without_a_list_the_pools_own_words_are_entries(pool) -> None:
    made = settled(pool, BalanceConfig(t=5, unmatched="keep"))
    assert made.chance(["panda"]) == pytest.approx(5 / 7)
    assert made.chance(["grass"]) is None  # once only


def test_a_list_must_be_there(tmp_path) -> None:
    with pytest.raises(ConfigError, match="an entry a line"):
        BalanceConfig(entries=str(tmp_path / "none.txt")).build()
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        BalanceConfig(entries=str(tmp_path / "empty.txt")).build()
