"""k-means on the unit sphere: clusters by cosine (Dhillon and Modha, "Concept decompositions", 2001).

The same vectors in the same order with the same seed and number of threads give the same centroids.
"""

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray

from diptych.core.seeds import numpy_generator

CELLS = 1 << 23
"""Cosines that are held at once."""


def spherical_kmeans(
    vectors: Float32[ndarray, "n e"], clusters: int, iterations: int, seed: int
) -> Float32[ndarray, "k e"]:
    """Unit centroids of n >= k unit vectors, from k of these drawn at random; it ends early where nothing changes.

    A centroid is the direction of its members' sum. One without members becomes the vector that fits its own worst.
    """
    drawn = numpy_generator(seed, "spherical k-means").permutation(len(vectors))[:clusters]
    given, centroids = torch.from_numpy(vectors), vectors[drawn]
    before = np.full(len(vectors), -1)
    for _ in range(iterations):
        where, cosine = nearest_centroids(vectors, centroids)
        if np.array_equal(where, before):
            break
        before = where
        sums = torch.zeros(len(centroids), vectors.shape[1]).index_add_(0, torch.from_numpy(where), given)
        length = sums.norm(dim=1, keepdim=True)
        centroids = (sums / length.clamp_min(1e-12)).numpy()
        empty = np.flatnonzero(length.numpy()[:, 0] < 1e-6)
        centroids[empty] = vectors[np.argsort(cosine, kind="stable")[: len(empty)]]
    return centroids


def nearest_centroids(
    vectors: Float32[ndarray, "n e"], centroids: Float32[ndarray, "k e"]
) -> tuple[Int64[ndarray, " n"], Float32[ndarray, " n"]]:
    """The centroid with the largest cosine for each vector, the first of equal ones, and that cosine."""
    where, cosine = np.empty(len(vectors), np.int64), np.empty(len(vectors), np.float32)
    step, table = max(1, CELLS // len(centroids)), torch.from_numpy(centroids).T
    for start in range(0, len(vectors), step):
        value, best = (torch.from_numpy(vectors[start : start + step]) @ table).max(1)
        where[start : start + step], cosine[start : start + step] = best.numpy(), value.numpy()
    return where, cosine
