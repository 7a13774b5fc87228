"""What captions are about, roughly: groups of them by their words, each named by the words that set it apart.

Texts become vectors of the words that are neither rare nor everywhere, weighted by log(texts / texts with the word)
(TF-IDF with frequencies of 0 or 1: Spärck Jones, "A statistical interpretation of term specificity", 1972), and are put
together by spherical k-means (Dhillon and Modha, "Concept decompositions for large sparse text data", 2001), its
first centroids drawn as k-means++ draws them. This is to look a set through, not to filter it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from diptych.core.seeds import numpy_generator
from diptych.data.candidates import CandidatePool
from diptych.data.dataset import Dataset
from diptych.data.vectors import read_vectors, unit_vectors, vector_path

WORDS = 2000
"""The most words that vectors are made of."""
LEAST, MOST = 3, 0.2
"""A word must be in at least so many texts, and in at most this share of them."""
ROUNDS = 20
_SAID = """
a an and are as at be but by can for from had has have he her him his if in into is it its no not of on or our out she
so some than that the their them then there these they this to up was we were what when which who will with you your
"""
FUNCTION_WORDS = frozenset(_SAID.split())
"""English words that name no topic."""
NAMED, NOTED = 5, 0.03
"""A group is named by so many words at most, of at least this mean weight in it."""


class Group(NamedTuple):
    """Texts that belong together: the words that set them apart, and their places, the most typical first. Without
    words: those that say none of the words that others share."""

    words: tuple[str, ...]
    members: tuple[int, ...]


def cluster_captions(texts: Sequence[str], count: int) -> list[Group]:
    """At most `count` groups of the texts, the largest first, and one of those that fit none; [] of too few texts."""
    vectors, vocabulary = word_vectors(texts)
    return _groups(vectors, vectors, vocabulary, count)


def cluster_vectors(
    path: str | PathLike[str], name: str, uids: Sequence[str], texts: Sequence[str], count: int
) -> list[Group]:
    """The same by the vectors called `name` that lie beside the dataset, each group named by the words of its texts;
    records without a vector are left out. Raises DataError where there are no such vectors."""
    pool = CandidatePool(path, list(Dataset.open(path).splits))
    place = {bytes.fromhex(uid): i for i, uid in enumerate(uids)}
    there = [shard for shard in pool.shards if vector_path(pool, name, shard).is_file()]
    found: Float32[ndarray, "n e"] | None = None
    for shard in there or pool.shards[:1]:
        rows = pool.rows(shard)
        vectors = read_vectors(pool, name, rows)
        if found is None:
            found = np.zeros((len(uids), vectors.shape[1]), dtype=np.float32)
        for row, uid in enumerate(rows.uids):
            if (i := place.get(uid.tobytes())) is not None:
                found[i] = np.nan_to_num(vectors[row].astype(np.float32))
    if found is None:
        return []
    words, vocabulary = word_vectors(texts)
    groups = _groups(unit_vectors(found), words, vocabulary, count)
    return [group for group in groups if found[list(group.members)].any()]


def _groups(vectors: ndarray, words: ndarray, vocabulary: list[str], count: int) -> list[Group]:
    """Groups of the vectors that are not 0, the largest first, and one of those that are."""
    told = np.flatnonzero(vectors.any(1))
    if len(told) < 2 * count:
        return []
    labels, centroids = spherical_kmeans(vectors[told], count)
    near = (vectors[told] * centroids[labels]).sum(1)
    groups = []
    for k in range(len(centroids)):
        mine = np.flatnonzero(labels == k)
        if len(mine):
            order = mine[np.argsort(-near[mine], kind="stable")]
            mean = words[told[mine]].mean(0)
            best = np.argsort(-mean, kind="stable")[:NAMED]
            said = tuple(vocabulary[i] for i in best.tolist() if mean[i] > NOTED)
            groups.append(Group(said, tuple(told[order].tolist())))
    groups.sort(key=lambda g: (-len(g.members), g.words))
    rest = np.flatnonzero(~vectors.any(1)).tolist()
    return [*groups, Group((), tuple(rest))] if rest else groups


def word_vectors(texts: Sequence[str]) -> tuple[Float32[ndarray, "n w"], list[str]]:
    """Of each text the weighted words in it, of length 1 (0 where there are none); and the words."""
    said = [set(re.findall(r"[^\W\d_]{2,}", text.casefold())) for text in texts]
    counts = Counter(word for words in said for word in words)
    most = max(LEAST, MOST * len(texts))
    known = [w for w, n in counts.items() if LEAST <= n <= most and w not in FUNCTION_WORDS]
    known = sorted(known, key=lambda w: (-counts[w], w))[:WORDS]
    place = {word: i for i, word in enumerate(known)}
    vectors = np.zeros((len(texts), len(known)), dtype=np.float32)
    for i, words in enumerate(said):
        vectors[i, [place[w] for w in words if w in place]] = 1
    vectors *= np.log(len(texts) / np.array([counts[w] for w in known], dtype=np.float32)) if known else 1
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1).astype(np.float32), known


def spherical_kmeans(
    vectors: Float32[ndarray, "n w"], count: int, seed: int = 0
) -> tuple[Int64[ndarray, " n"], Float32[ndarray, "k w"]]:
    """The group of each vector of length 1, and the centroids, of length 1 too; the same for the same seed."""
    draw = numpy_generator(seed, "card", "clusters")
    centroids = vectors[draw.integers(len(vectors), size=1)]
    while len(centroids) < min(count, len(vectors)):
        far = (1 - (vectors @ centroids.T).max(1)).astype(np.float64)
        far[far < 1e-5] = 0  # what is a centroid already, but for rounding
        if not far.any():
            break
        centroids = np.concatenate([centroids, vectors[[draw.choice(len(vectors), p=far / far.sum())]]])
    labels = np.full(len(vectors), -1, dtype=np.int64)
    for _ in range(ROUNDS):
        nearest = (vectors @ centroids.T).argmax(1)
        if np.array_equal(nearest, labels):
            break
        labels = nearest
        for k in range(len(centroids)):
            mean = vectors[labels == k].sum(0)
            if np.linalg.norm(mean) > 0:
                centroids[k] = mean / np.linalg.norm(mean)
    return labels, centroids
