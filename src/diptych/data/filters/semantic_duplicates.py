"""SemDeDup: of records that mean nearly the same by a model's vectors one stays (Abbas et al., 2023, arXiv:2303.09540).

Vectors are clustered by k-means on the sphere; in each cluster, ordered by the distance to its centroid, an item goes
if its cosine with an earlier one is above 1 - eps. As in the authors' code, an earlier one counts also if it goes
itself, so chains collapse to their first; `compare_with="kept"` is the milder rule, by which each one that goes is near
one that stays.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64
from numpy import ndarray
from pydantic import Field

from diptych.core.errors import DataError
from diptych.core.progress import track
from diptych.data.candidates import CandidatePool, Rows
from diptych.data.draws import Draws
from diptych.data.filters.filter import Filter, FilterConfig
from diptych.data.spherical_kmeans import nearest_centroids, spherical_kmeans
from diptych.data.vectors import has_vector, read_vectors, unit_vectors
from diptych.data.verdicts import read_verdicts, starts_of, write_verdicts

BLOCK = 1024
"""Items of a cluster that are compared at once, with as many: the memory that cosines take."""

ASSIGNED = 1 << 14
"""Vectors that are read to be assigned at once, always as many whatever the shards, so that rounding is the same."""


class SemanticDuplicatesConfig(FilterConfig):
    """How alike is the same, and which of them stays.

    vectors             the name under which they were written (`diptych embed`)
    eps                 one goes whose cosine with an earlier one is above 1 - eps
    clusters            0: one for every 1,000 records, as the cost of a cluster is its square (published: 50,000 for
                        LAION-440M)
    iterations          of k-means at most (published: 100)
    sample_per_cluster  vectors that k-means sees for each cluster, drawn by hashes of uids; all are assigned
    order               which comes first and so stays: "hard": farthest from the centroid; "easy": nearest; "random"
    compare_with        "all" earlier ones of the cluster (published), or those that were "kept"
    seed                of the sample, the first centroids and the random order
    """

    vectors: str = "clip"
    eps: float = Field(default=0.05, ge=0, le=1)
    clusters: int = Field(default=0, ge=0)
    iterations: int = Field(default=20, ge=1)
    sample_per_cluster: int = Field(default=64, ge=1)
    order: Literal["hard", "easy", "random"] = "hard"
    compare_with: Literal["all", "kept"] = "all"
    seed: int = 0

    def build(self) -> "SemanticDuplicates":
        """The filter."""
        return SemanticDuplicates(self)


class SemanticDuplicates(Filter):
    """Reasons: semantic_duplicate, no_vector.

    While it is settled, the vectors that are left lie in one file, 2 e bytes each; in memory are the sample of k-means,
    some 40 bytes a record, and one cluster. Clustering runs in the process that settles, on all of torch's threads.
    """

    gathers: ClassVar[bool] = True

    def __init__(self, config: SemanticDuplicatesConfig) -> None:
        self.config = config
        self._folder: Path | None = None

    def gather(self, rows: Rows, alive: Bool[ndarray, " n"]) -> Any:
        """Where in the shard those with a vector are."""
        return np.flatnonzero(alive & has_vector(read_vectors(rows.pool, self.config.vectors, rows))).astype(np.int32)

    def settle(self, gathered: Iterator[Any], pool: CandidatePool, folder: Path) -> None:
        """Which ones go."""
        file = folder / "vectors.raw"
        place, draw, width = _collect(gathered, pool, self.config, file)
        codes = np.full(len(pool), 2, dtype=np.uint8)
        codes[place] = 0
        if len(place):
            vectors = np.memmap(file, np.float16, "r", shape=(len(place), width))
            codes[place[semantic_duplicates(vectors, draw, self.config)]] = 1
        file.unlink()
        write_verdicts(folder, pool, codes)
        self._folder = folder

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """As it was settled."""
        return list(np.array(["", "semantic_duplicate", "no_vector"])[read_verdicts(self._folder, rows)])


def semantic_duplicates(
    vectors: Float16[ndarray, "n e"], draws: ndarray, config: SemanticDuplicatesConfig
) -> Bool[ndarray, " n"]:
    """Which of n vectors go, these perhaps mapped from a file.

    `draws` (n, 2): a word each for the sample and for the random order.
    """
    n = len(vectors)
    clusters = min(config.clusters or -(-n // 1000), n)
    chosen = np.argsort(draws[:, 0], kind="stable")[: config.sample_per_cluster * clusters]
    centroids = spherical_kmeans(unit_vectors(vectors[chosen]), clusters, config.iterations, config.seed)
    where, cosine = np.empty(n, np.int64), np.empty(n, np.float32)
    for start in range(0, n, ASSIGNED):
        part = slice(start, start + ASSIGNED)
        where[part], cosine[part] = nearest_centroids(unit_vectors(vectors[part]), centroids)
    rank = {"hard": cosine, "easy": -cosine, "random": draws[:, 1]}[config.order]
    order = np.lexsort([rank, where])  # stable: equally far ones in the pool's order
    edges = np.searchsorted(where[order], np.arange(clusters + 1))
    goes = np.zeros(n, dtype=bool)
    for k in track(range(clusters), "clusters"):
        members = order[edges[k] : edges[k + 1]]
        if len(members) > 1:
            goes[members] = drops_in_cluster(unit_vectors(vectors[members]), config.eps, config.compare_with)
    return goes


def drops_in_cluster(
    members: Float32[ndarray, "m e"], eps: float, compare_with: Literal["all", "kept"] = "all", block: int = BLOCK
) -> Bool[ndarray, " m"]:
    """Which members of a cluster, in its order, go: j with max over i < j of cos(i, j) above 1 - eps; with "kept" over
    those i that stay. Cosines of `block` with `block` are held at once."""
    m, limit = len(members), 1 - eps
    goes = np.zeros(m, dtype=bool)
    for start in range(0, m, block):
        part = members[start : start + block]
        most = np.zeros(len(part), np.float32)
        for before in range(0, start, block):
            earlier = members[before : before + block]
            if compare_with == "kept":
                earlier = earlier[~goes[before : before + block]]
            most = np.maximum(most, (earlier @ part.T).max(0, initial=0.0))
        among = np.triu(part @ part.T, 1)
        if compare_with == "all":
            goes[start : start + block] = np.maximum(most, among.max(0)) > limit
            continue
        mine = most > limit
        for j in range(1, len(part)):
            mine[j] = mine[j] or bool((among[:j, j][~mine[:j]] > limit).any())
        goes[start : start + block] = mine
    return goes


def _collect(
    gathered: Iterator[Any], pool: CandidatePool, config: SemanticDuplicatesConfig, file: Path
) -> tuple[Int64[ndarray, " n"], ndarray, int]:
    """Write the vectors of those that are compared into one file; their places in the pool, draws, and the width."""
    places, draws, widths = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.uint64)], set[int]()
    with file.open("wb") as out:
        for start, shard, where in zip(starts_of(pool), pool.shards, gathered, strict=True):
            if not len(where):
                continue
            rows = pool.rows(shard)
            found = read_vectors(pool, config.vectors, rows)[where]
            widths.add(found.shape[1])
            out.write(np.ascontiguousarray(found).data)
            places.append(where + np.int64(start))
            keys = np.ascontiguousarray(rows.uids[where][:, :8]).view("<u8")[:, 0].tolist()
            draws.append(Draws(keys).words(f"semantic_duplicates {config.seed}", 2))
    if len(widths) > 1:
        raise DataError(
            f"vectors called {config.vectors!r} must all have one width; got {sorted(widths)}. Embed all again."
        )
    return np.concatenate(places), np.concatenate(draws), next(iter(widths), 0)
