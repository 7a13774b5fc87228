"""SemDeDup beside the plain rule, on random vectors with planted duplicates."""

import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.data.candidates import CandidatePool
from diptych.data.filters import semantic_duplicates as module
from diptych.data.filters.semantic_duplicates import SemanticDuplicatesConfig, drops_in_cluster, semantic_duplicates
from diptych.data.spherical_kmeans import spherical_kmeans
from diptych.data.vectors import read_vectors, unit_vectors, write_vectors
from tests.data.curation_pools import packed_pool
from tests.data.filters.copies_pools import judged
from tests.reference import semdedup as plain


def planted(n: int, seed: int = 0) -> np.ndarray:
    """Unit vectors of which a third are close to another, some in chains."""
    rng = np.random.default_rng(seed)
    found = list(unit_vectors(rng.normal(size=(n, 12))))
    for _ in range(n // 2):
        near = found[int(rng.integers(len(found)))]
        found.append(unit_vectors((near + rng.normal(0, rng.choice([0.01, 0.05, 0.09]), 12))[None])[0])
    return np.stack(found)[rng.permutation(len(found))].astype(np.float16)


@pytest.mark.parametrize("compare_with", ["all", "kept"])
@pytest.mark.parametrize("block", [1, 7, 1024])
def test_a_cluster_is_deduplicated_by_the_plain_rule(compare_with, block) -> None:
    members = unit_vectors(planted(60))
    found = drops_in_cluster(members, 0.05, compare_with, block)
    assert found.tolist() == plain.drops(members, 0.05, compare_with)
    assert 5 < found.sum() < 60


def test_chains_collapse_or_do_not() -> None:
    angles = np.arange(5) * np.arccos(0.97)
    chain = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert drops_in_cluster(chain, 0.05, "all").tolist() == [False, True, True, True, True]
    assert drops_in_cluster(chain, 0.05, "kept").tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("order", ["hard", "easy"])
@pytest.mark.parametrize("compare_with", ["all", "kept"])
def test_the_same_stay_as_by_the_plain_rule(order, compare_with, monkeypatch) -> None:
    monkeypatch.setattr(module, "ASSIGNED", 32)
    vectors = planted(120)
    draws = np.random.default_rng(1).integers(0, 2**63, (len(vectors), 2)).astype(np.uint64)
    config = SemanticDuplicatesConfig(clusters=6, sample_per_cluster=10, order=order, compare_with=compare_with, seed=3)
    goes = semantic_duplicates(vectors, draws, config)
    sample = np.argsort(draws[:, 0])[:60]
    centroids = spherical_kmeans(unit_vectors(vectors[sample]), 6, config.iterations, 3)
    want = plain.semdedup(unit_vectors(vectors), centroids, 0.05, order, compare_with)
    assert set(np.flatnonzero(~goes).tolist()) == want
    assert len(vectors) / 2 < len(want) < len(vectors)


def pool_with(folder, vectors, per_shard: int) -> CandidatePool:
    pool = CandidatePool(packed_pool(folder, [[f"caption {i}"] for i in range(len(vectors))], per_shard=per_shard))
    at = 0
    for shard in pool.shards:
        rows = pool.rows(shard)
        write_vectors(pool, "clip", rows, vectors[at : at + len(rows)])
        at += len(rows)
    return pool


@pytest.mark.parametrize("order", ["hard", "random"])
def test_shards_change_nothing_and_what_has_no_vector_says_so(tmp_path, order) -> None:
    vectors = planted(40).astype(np.float64)
    vectors[[3, 17]] = np.nan
    config, said = SemanticDuplicatesConfig(clusters=3, order=order), []
    for per_shard in (7, 100):
        pool = pool_with(tmp_path / f"d{per_shard}", vectors, per_shard)
        said.append(judged(config.build(), pool, tmp_path / f"state{per_shard}"))
        again = judged(config.build(), pool, tmp_path / "again")
        assert again == said[-1]
    assert said[0] == said[1]
    assert [t for t, r in said[0].items() if r == "no_vector"] == ["caption 3", "caption 17"]
    assert sum(r == "semantic_duplicate" for r in said[0].values()) > 5


def test_only_those_that_are_left_are_compared_and_widths_must_agree(tmp_path) -> None:
    vectors = np.eye(6, 8)
    vectors[4] = vectors[0]
    pool = pool_with(tmp_path / "d", vectors, 3)
    made = SemanticDuplicatesConfig().build()
    assert sum(r != "" for r in judged(made, pool, tmp_path / "state").values()) == 1
    alive = np.array([False, *[True] * 5])
    assert set(judged(made, pool, tmp_path / "state", alive).values()) == {""}
    rows = pool.rows(pool.shards[1])
    write_vectors(pool, "clip", rows, read_vectors(pool, "clip", rows)[:, :5])
    with pytest.raises(DataError, match="one width"):
        judged(made, pool, tmp_path / "state")
