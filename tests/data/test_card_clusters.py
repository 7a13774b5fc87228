"""Groups of captions: planted topics are found, named by their words, and the same each time."""

import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.data.candidates import CandidatePool
from diptych.data.card_clusters import cluster_captions, cluster_vectors, spherical_kmeans, word_vectors
from diptych.data.vectors import write_vectors
from tests.data.curation_pools import all_rows, packed_pool

TOPICS = ("red dog runs", "blue car drives", "green tree grows", "white boat sails", "old house stands")
TEXTS = [f"{TOPICS[i % 5]} {i}" for i in range(60)]


def test_topics_are_told_apart() -> None:
    groups = cluster_captions([*TEXTS, "!?", ""], 5)
    assert [len(g.members) for g in groups] == [12] * 5 + [2]
    assert {frozenset(g.words) for g in groups[:5]} == {frozenset(t.split()) for t in TOPICS}
    assert groups[-1].words == ()
    assert sorted(i for g in groups for i in g.members) == list(range(62))
    assert groups == cluster_captions([*TEXTS, "!?", ""], 5)


def test_few_texts_make_no_groups() -> None:
    assert cluster_captions(TEXTS[:6], 5) == []
    assert cluster_captions([], 2) == []


def test_word_vectors_are_of_length_one_and_without_rare_words() -> None:
    vectors, words = word_vectors(TEXTS)
    assert set(words) == {w for t in TOPICS for w in t.split()}
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_kmeans_stops_where_there_are_fewer_directions_than_groups() -> None:
    vectors = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    labels, centroids = spherical_kmeans(vectors, 4)
    assert len(centroids) == 2
    assert len(set(labels[:5].tolist())) == 1
    assert labels[0] != labels[9]


def test_vectors_beside_the_dataset_are_used(tmp_path) -> None:
    data = packed_pool(tmp_path / "d", [[t] for t in TEXTS], per_shard=25)
    pool, uids, kinds = CandidatePool(data), [], []
    for rows in all_rows(data):
        own = [i % 2 for i in range(len(rows))]  # two directions that the words know nothing of
        vectors = np.array([[1.0, 0.1] if k else [0.1, 1.0] for k in own])
        vectors[0] = np.nan
        write_vectors(pool, "seen", rows, vectors)
        uids += rows.table["uid"].to_pylist()
        kinds += own
    groups = cluster_vectors(data, "seen", uids, TEXTS, 2)
    assert sum(len(g.members) for g in groups) == 60 - 3  # those without a vector are left out
    assert all(len({kinds[i] for i in g.members}) == 1 for g in groups)
    with pytest.raises(DataError, match="vectors called 'other'"):
        cluster_vectors(data, "other", uids, TEXTS, 2)
