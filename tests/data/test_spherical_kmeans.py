"""Clusters on the sphere."""

import numpy as np

from diptych.data import spherical_kmeans as module
from diptych.data.spherical_kmeans import nearest_centroids, spherical_kmeans
from diptych.data.vectors import unit_vectors


def blobs(clusters: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = unit_vectors(rng.normal(size=(clusters, 16)))
    labels = np.repeat(np.arange(clusters), each)
    return unit_vectors(centres[labels] + 0.05 * rng.normal(size=(len(labels), 16))), labels


def plain(vectors: np.ndarray, centroids: np.ndarray, iterations: int) -> np.ndarray:
    for _ in range(iterations):
        label = [max(range(len(centroids)), key=lambda k, v=v: v @ centroids[k]) for v in vectors]
        sums = [sum(v for v, own in zip(vectors, label, strict=True) if own == k) for k in range(len(centroids))]
        centroids = np.array([s / np.linalg.norm(s) for s in sums])
    return centroids


def test_it_is_the_plain_loop_and_the_same_each_time() -> None:
    vectors, _ = blobs(4, 25)
    first = spherical_kmeans(vectors, 4, 0, seed=3)
    found = spherical_kmeans(vectors, 4, 3, seed=3)
    np.testing.assert_allclose(found, plain(vectors, first, 3), atol=1e-5)  # float32 sums of 25
    assert np.array_equal(found, spherical_kmeans(vectors, 4, 3, seed=3))
    assert not np.array_equal(first, spherical_kmeans(vectors, 4, 0, seed=4))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_clusters_are_found_and_none_stays_empty(monkeypatch) -> None:
    vectors, labels = blobs(5, 30)
    where, cosine = nearest_centroids(vectors, spherical_kmeans(vectors, 5, 50, seed=1))
    assert cosine.mean() > 0.8
    monkeypatch.setattr(module, "CELLS", 20)
    again, _ = nearest_centroids(vectors, spherical_kmeans(vectors, 5, 50, seed=1))
    assert np.array_equal(where, again)
    same = np.repeat(vectors[:1], 20, axis=0)
    same[-1] = vectors[labels == 3][0]  # two distinct vectors and three clusters
    centroids = spherical_kmeans(same, 3, 10, seed=0)
    assert np.isfinite(centroids).all()
    assert len(np.unique(nearest_centroids(same, centroids)[0])) == 2
