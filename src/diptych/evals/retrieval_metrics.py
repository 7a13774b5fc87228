"""From ranks to recall at K, median rank and mean reciprocal rank: with intervals and the level of guessing."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from diptych.evals import ranking
from diptych.evals.eval import Estimate, ItemTable
from diptych.evals.items import item_table, numbered
from diptych.evals.ranking import Matches, Ranks
from diptych.evals.statistics import mean_estimate, median_estimate, share_estimate
from diptych.report.figures import Lines

CURVE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)
"""The K of the figure."""


class Queries(NamedTuple):
    """One direction, copies counted: the rank of each query's best right answer, which queries are not independent,
    how many answers are right for each, and among how many they stand."""

    way: str
    ranks: Float64[np.ndarray, " q"]
    clusters: Int64[np.ndarray, " q"]
    right: Float64[np.ndarray, " q"]
    gallery: int


def directions(found: Ranks, matches: Matches) -> tuple[Queries, Queries]:
    """Text to image and image to text.

    Captions of one image are not independent, and equal captions are one and the same query: whichever are fewer.
    """
    image_of, text_of = matches.image_of.numpy(), matches.text_of.numpy()
    by_image = len(matches.first_image) <= len(matches.first_text)
    clusters = image_of[matches.owner.numpy()] if by_image else text_of
    return (
        Queries("t2i", found.t2i.numpy()[text_of], clusters, matches.right_images().numpy()[text_of], len(image_of)),
        Queries("i2t", found.i2t.numpy()[image_of], image_of, matches.right_texts().numpy()[image_of], len(text_of)),
    )


def metrics_of(
    found: Ranks, matches: Matches, k: Sequence[int], samples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """``t2i_recall_at_<k>``, ``t2i_median_rank``, ``t2i_mrr``, and the same of i2t."""
    metrics: dict[str, Estimate] = {}
    for q in directions(found, matches):
        for at in k:
            chance = ranking.chance_recall(q.right, q.gallery, at)
            metrics[f"{q.way}_recall_at_{at}"] = share_estimate(q.ranks <= at, q.clusters, chance, samples, seed)
        chance = ranking.chance_median_rank(q.right, q.gallery)
        metrics[f"{q.way}_median_rank"] = median_estimate(q.ranks, q.clusters, chance, samples, seed)
        chance = ranking.chance_mean_reciprocal_rank(q.right, q.gallery)
        metrics[f"{q.way}_mrr"] = mean_estimate(1 / q.ranks, q.clusters, chance, samples, seed)
    return metrics


def items_of(found: Ranks, matches: Matches, uids: Sequence[str], k: Sequence[int]) -> dict[str, ItemTable]:
    """Whether each image's and each caption's right answer is among the K best, and 1 / its rank."""
    captions = numbered([uids[i] for i in matches.owner.tolist()])
    t2i, i2t = directions(found, matches)
    tables: dict[str, ItemTable] = {}
    for name, keys, q in (("images", uids, i2t), ("captions", captions, t2i)):
        values = {f"{q.way}_recall_at_{at}": q.ranks <= at for at in k} | {f"{q.way}_mrr": 1 / q.ranks}
        tables[name] = item_table(keys, values, q.clusters)
    return tables


def recall_curves(found: Ranks, matches: Matches) -> Lines:
    """Recall at each K both ways, beside guessing."""
    both = directions(found, matches)
    at = [k for k in CURVE if k <= max(q.gallery for q in both)]
    names = {"t2i": "text to image", "i2t": "image to text"}
    curves = {names[q.way]: tuple(float((q.ranks <= k).mean()) for k in at) for q in both}
    guesses = {
        f"{names[q.way]}, guessing": tuple(ranking.chance_recall(q.right, q.gallery, k) for k in at) for q in both
    }
    return Lines(
        title="Recall at K",
        words="The share of queries of which a right answer is among the K best, and what guessing reaches.",
        x=tuple(float(k) for k in at),
        series=curves | guesses,
        x_label="K",
        y_label="recall",
    )
