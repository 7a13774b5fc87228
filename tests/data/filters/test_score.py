"""Thresholds, and DataComp's rule of the best share."""

import numpy as np
import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool, write_scores
from diptych.data.filters.score import ScoreConfig
from tests.data.curation_pools import packed_pool


@pytest.fixture
def pool(tmp_path) -> CandidatePool:
    made = CandidatePool(packed_pool(tmp_path / "d", [[f"caption {i}"] for i in range(10)], per_shard=4))
    values = np.array([0.3, 0.1, 0.9, 0.5, 0.5, np.nan, 0.7, 0.2, 0.8, 0.4])
    at = 0
    for shard in made.shards:
        rows = made.rows(shard)
        write_scores(made, "quality", rows, values[at : at + len(rows)])
        at += len(rows)
    return made


def kept(pool: CandidatePool, alive: np.ndarray | None = None, **settings) -> list[int]:
    made = ScoreConfig(**settings).build()
    alive = np.ones(10, dtype=bool) if alive is None else alive
    parts, at = [], 0
    for shard in pool.shards:
        rows = pool.rows(shard)
        parts.append(made.gather(rows, alive[at : at + len(rows)]))
        at += len(rows)
    made.settle(iter(parts), pool, pool.path)
    said = [r for s in pool.shards for r in made.reasons(pool.rows(s), np.ones(pool.records_of(s), dtype=bool))]
    assert said[5] == "no_score"
    return [i for i, r in enumerate(said) if not r and alive[i]]


def test_a_threshold(pool) -> None:
    assert kept(pool, threshold=0.5) == [2, 3, 4, 6, 8]
    assert kept(pool) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_the_best_share_is_datacomps(pool) -> None:
    scores = sorted([0.3, 0.1, 0.9, 0.5, 0.5, 0.7, 0.2, 0.8, 0.4], reverse=True)
    for fraction in (0.1, 0.3, 0.5, 0.9):
        threshold = scores[int(len(scores) * fraction)]
        assert len(kept(pool, fraction=fraction)) == sum(s >= threshold for s in scores)


def test_the_share_is_of_those_that_are_left(pool) -> None:
    alive = np.zeros(10, dtype=bool)
    alive[[1, 7, 0, 9]] = True  # 0.1, 0.2, 0.3, 0.4
    assert kept(pool, alive, fraction=0.5) == [0, 7, 9]


def test_one_of_both() -> None:
    with pytest.raises(ConfigError, match="a threshold or a fraction"):
        ScoreConfig(threshold=0.2, fraction=0.3)
