"""Leaks of test images, planted in every way."""

import numpy as np
import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool
from diptych.data.filters.decontaminate import DecontaminateConfig
from diptych.data.vectors import write_vectors
from tests.data.filters.copies_pools import CHANGES, changed, judged, packed_pictures, picture

HELD = [(picture(i), f"held {i}") for i in range(100, 110)]
CLEAN = [(picture(i), f"own {i}") for i in range(30)]
LEAKS = [(changed(100 + i, how), f"{how} {100 + i}") for i, how in enumerate(CHANGES)]
EQUAL = [(picture(i), f"equal {i}") for i in (105, 106)]


@pytest.fixture
def pool(tmp_path) -> CandidatePool:
    held = [(changed(i, "reencoded"), f"own test {i}") for i in (3, 50)]
    return packed_pictures(tmp_path / "pool", [*CLEAN, *LEAKS, *EQUAL], 9, held)


def test_leaks_are_found_and_named(pool, tmp_path) -> None:
    packed_pictures(tmp_path / "Bench-1", CLEAN[5:7], held=HELD)
    config = DecontaminateConfig(against=(f"{tmp_path / 'Bench-1'}:test", f"{pool.path}:test"))
    said = judged(config.build(), pool, tmp_path / "state")
    assert {t for t, r in said.items() if r == "near_copy_of_bench_1_test"} == {t for _, t in LEAKS}
    assert {t for t, r in said.items() if r == "exact_copy_of_bench_1_test"} == {t for _, t in EQUAL}
    assert [t for t, r in said.items() if r == "near_copy_of_pool_test"] == ["own 3"]
    assert sum(r != "" for r in said.values()) == len(LEAKS) + len(EQUAL) + 1
    config = DecontaminateConfig(against=config.against, near=False)
    bytes_alone = judged(config.build(), pool, tmp_path / "state")
    assert {t for t, r in bytes_alone.items() if r} == {t for _, t in EQUAL}


def test_the_own_held_out_splits_are_the_default(pool, tmp_path) -> None:
    said = judged(DecontaminateConfig().build(), pool, tmp_path / "state")
    assert [t for t, r in said.items() if r] == ["own 3"]
    whole = packed_pictures(tmp_path / "bench", CLEAN[5:7], held=HELD)
    said = judged(DecontaminateConfig(against=(str(whole.path),)).build(), pool, tmp_path / "state")
    assert sum(r != "" for r in said.values()) == len(LEAKS) + len(EQUAL)


def test_there_must_be_something_to_compare_with(pool, tmp_path) -> None:
    alone = packed_pictures(tmp_path / "alone", CLEAN[:3])
    with pytest.raises(ConfigError, match="must name what is tested on"):
        judged(DecontaminateConfig().build(), alone, tmp_path / "state")
    with pytest.raises(ConfigError, match="must not be curated itself"):
        judged(DecontaminateConfig(against=(f"{alone.path}:train",)).build(), alone, tmp_path / "state")


def test_vectors(pool, tmp_path) -> None:
    rng = np.random.default_rng(0)
    theirs = rng.normal(size=(2, 8))
    test = CandidatePool(pool.path, ("test",))
    write_vectors(test, "clip", test.rows(test.shards[0]), theirs)
    for shard in pool.shards:
        rows = pool.rows(shard)
        mine = rng.normal(size=(len(rows), 8))
        if "own 12" in rows.texts:
            mine[rows.texts.index("own 12")] = 3 * theirs[1] + 0.01
            mine[rows.texts.index("own 13")] = np.nan
        write_vectors(pool, "clip", rows, mine)
    said = judged(DecontaminateConfig(vectors="clip").build(), pool, tmp_path / "state")
    assert {t: r for t, r in said.items() if r} == {
        "own 3": "near_copy_of_pool_test",
        "own 12": "vector_copy_of_pool_test",
    }
    write_vectors(test, "clip", test.rows(test.shards[0]), theirs[:, :5])
    with pytest.raises(ConfigError, match="must be one model's"):
        judged(DecontaminateConfig(vectors="clip").build(), pool, tmp_path / "state")
