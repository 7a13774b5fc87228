"""What a classifier's guesses come to: accuracies with intervals, what each image brought, and figures."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from diptych.evals.eval import Estimate, ItemTable
from diptych.evals.frozen_features import Labelled
from diptych.evals.items import item_table
from diptych.evals.prompts import Classes
from diptych.evals.scoring import thumbnail
from diptych.evals.statistics import proportion, share_estimate, stratified_mean
from diptych.report.figures import Figure, Interval, Intervals, Picture, Pictures, Words

MOST_CLASSES = 60
"""Of more classes a figure shows those that are recalled worst."""

MOST_CONFUSIONS = 50


class Predictions(NamedTuple):
    """The guesses of a classifier: its first, whether the truth is among its first five, how strongly it is for it."""

    predicted: Int64[np.ndarray, " n"]
    in_top_5: Bool[np.ndarray, " n"]
    strength: Float64[np.ndarray, " n"]


def predictions(scores: Float[Tensor, "n c"], truth: Int64[np.ndarray, " n"]) -> Predictions:
    """The guesses that scores of all classes come to; a class that cannot be guessed has -inf, and is never right.
    Strength is by how much the first class leads the second."""
    best = scores.topk(min(5, scores.shape[1]), 1)
    right = (best.indices == torch.from_numpy(truth)[:, None]) & best.values.isfinite()
    lead = (best.values[:, 0] - best.values[:, 1]).double()
    return Predictions(scores.argmax(1).numpy(), right.any(1).numpy(), lead.numpy())


def blind_chance(train: Int64[np.ndarray, " t"], judged: Int64[np.ndarray, " n"]) -> float:
    """What one reaches who has learned how frequent classes are and looks at no image: the share of the judged that
    are of the class most frequent in training; of equally frequent classes, their mean."""
    counts = np.bincount(train)
    frequent = np.flatnonzero(counts == counts.max())
    return float(np.isin(judged, frequent).mean() / len(frequent))


def class_metrics(
    guesses: Predictions, judged: Labelled, num_classes: int, chance: float, samples: int, seed: int
) -> dict[str, Estimate]:
    """acc@1, acc@5 (of more than five classes) and mean per-class recall over the classes that are there."""
    truth, clusters = judged.truth, judged.clusters
    how = {"samples": samples, "seed": seed}
    hits = guesses.predicted == truth
    counts, right = np.bincount(truth, minlength=num_classes), np.bincount(truth[hits], minlength=num_classes)
    present = counts > 0
    found = {"acc_at_1": share_estimate(hits, clusters, chance, **how)}
    if num_classes > 5:
        found["acc_at_5"] = share_estimate(guesses.in_top_5, clusters, 5 / num_classes, **how)
    found["mean_per_class_recall"] = stratified_mean(right[present], counts[present], 1 / num_classes, **how)
    return found


def class_items(guesses: Predictions, judged: Labelled, num_classes: int) -> dict[str, ItemTable]:
    """What each judged image brought to `class_metrics`."""
    hits = (guesses.predicted == judged.truth).astype(float)
    counts = np.bincount(judged.truth, minlength=num_classes)
    weight = len(hits) / (int((counts > 0).sum()) * counts[judged.truth])
    values = {"acc_at_1": hits, "mean_per_class_recall": hits * weight}
    if num_classes > 5:
        values["acc_at_5"] = guesses.in_top_5.astype(float)
    return {"images": item_table([judged.split.uid(p) for p in judged.places], values, judged.clusters)}


def class_figures(guesses: Predictions, judged: Labelled, classes: Classes, pictures: int) -> tuple[Figure, ...]:
    """Recall of each class, what is taken for what, and the mistakes that the classifier is surest of."""
    names, size = classes.names, len(classes.names)
    confusion = np.bincount(judged.truth * size + guesses.predicted, minlength=size * size).reshape(size, size)
    counts, right = confusion.sum(1), np.diag(confusion)
    there = np.flatnonzero(counts)
    if len(there) > MOST_CLASSES:
        there = there[np.argsort((right / np.maximum(counts, 1))[there], kind="stable")[:MOST_CLASSES]]
    rows = []
    for c in there.tolist():
        e = proportion(int(right[c]), int(counts[c]), 1 / size)
        rows.append(Interval(name=names[c], value=e.value, low=e.low, high=e.high, chance=1 / size, n=int(counts[c])))
    found: list[Figure] = [
        Intervals(title="Recall by class", words=f"{len(rows)} of {int((counts > 0).sum())} classes.", rows=tuple(rows))
    ]
    wrong = confusion - np.diag(right)
    pairs = [p for p in np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS].tolist() if wrong.flat[p]]
    taken = tuple((names[p // size], names[p % size], str(int(wrong.flat[p]))) for p in pairs)
    if taken:
        head = ("class", "taken for", "images")
        found.append(Words(title="What is taken for what", head=head, rows=taken, numeric=(2,), shown=10))
    shown = _mistakes(guesses, judged, names, pictures)
    if shown:
        found.append(Pictures(title="Surest mistakes", words="What it is taken for; what it is.", pictures=shown))
    return tuple(found)


def _mistakes(guesses: Predictions, judged: Labelled, names: Sequence[str], most: int) -> tuple[Picture, ...]:
    wrong = np.flatnonzero(guesses.predicted != judged.truth)
    wrong = wrong[np.argsort(-guesses.strength[wrong], kind="stable")][:most]
    return tuple(
        Picture(
            image=thumbnail(judged.split, judged.places[i]),
            caption=names[guesses.predicted[i]],
            detail=f"is {names[judged.truth[i]]}",
            verdict="wrong",
        )
        for i in wrong.tolist()
    )
