"""SemDeDup in loops over all pairs of a cluster, and duplicates in loops over all pairs of a pool."""

import numpy as np


def drops(members: np.ndarray, eps: float, compare_with: str) -> list[bool]:
    """(m, e) unit vectors of a cluster in its order: which go."""
    goes: list[bool] = []
    for j in range(len(members)):
        earlier = [i for i in range(j) if compare_with == "all" or not goes[i]]
        goes.append(any(float(members[i] @ members[j]) > 1 - eps for i in earlier))
    return goes


def semdedup(vectors: np.ndarray, centroids: np.ndarray, eps: float, order: str, compare_with: str) -> set[int]:
    """The rows of (n, e) unit vectors that stay, given unit centroids: each cluster "hard" or "easy" first."""
    cosines = vectors @ centroids.T
    cluster, kept = cosines.argmax(1), set()
    for k in range(len(centroids)):
        mine = sorted(np.flatnonzero(cluster == k).tolist(), key=lambda i: (cosines[i, k], i))
        if order == "easy":
            mine = sorted(mine, key=lambda i: (-cosines[i, k], i))
        kept |= {i for i, goes in zip(mine, drops(vectors[mine], eps, compare_with), strict=True) if not goes}
    return kept


def pairs_within(hashes: list[int], most_bits: int) -> set[tuple[int, int]]:
    """All pairs of hashes that differ in at most so many bits."""
    n = len(hashes)
    return {(i, j) for j in range(n) for i in range(j) if (hashes[i] ^ hashes[j]).bit_count() <= most_bits}
