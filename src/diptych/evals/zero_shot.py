"""Zero-shot classification: which class's words lie closest to an image? On the user's own classes, untrained."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int64
from pydantic import Field

from diptych.data.image_reader import ImageReader
from diptych.evals.calibration_error import calibration_error, reliability_bins
from diptych.evals.class_guesses import Guesses, guess, probability_scale, prompt_scorer
from diptych.evals.class_labels import ClassConfig, read_labels
from diptych.evals.eval import Estimate, Eval, EvalResult, ItemTable
from diptych.evals.items import item_table
from diptych.evals.prompts import BARE, SINGLE, Classes, read_classes, read_templates
from diptych.evals.scoring import (
    Gallery,
    choose_scoring,
    dataset_folder,
    describe_broken,
    distinct,
    paired_values,
    places_to_score,
    read_gallery,
    thumbnail,
)
from diptych.evals.statistics import paired_difference, proportion, share_estimate, stratified_mean
from diptych.models.pretrained import Pretrained


class ZeroShotConfig(ClassConfig):
    """Settings of the zero-shot eval."""

    pictures: int = Field(24, ge=0)
    """How many of the most confident mistakes go into the report."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 1000, "most_scored": 100}
    full: ClassVar[Mapping[str, Any] | None] = {"most_scored": 200}

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records do not say their class."""
        field, labels = self.looked_at(data)
        reason = super().unsuited(model, data)
        if not reason and not all(labels):
            reason = f"its records have no {field} in their meta"
        if not reason and any(isinstance(x, (list, tuple)) for found in labels for x in found):
            reason = "its images have several labels each: multi_label is for them"
        return reason

    def build(self) -> "ZeroShot":
        """The eval."""
        return ZeroShot(self)


class ZeroShot(Eval):
    """acc@1, acc@5 and mean per-class recall of prompt ensembles, against one prompt and the bare name, and the ECE.

    A class's vector is the mean of its prompts' unit vectors, made unit again (Radford et al., arXiv:2103.00020);
    a model without embeddings scores every prompt and its scores are averaged over the templates (`scored_by`, with or
    without the prior of the words: `text_prior`).
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "acc_at_1"

    def __init__(self, config: ZeroShotConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`, whose records must say their class in their meta."""
        config = self.config
        folder = dataset_folder(config.data, data)
        scoring = choose_scoring(model, config, "zero_shot")
        places = places_to_score(data, config, scoring)
        field, labels = read_labels(data, places, config.label_field)
        classes = read_classes(config.classes, folder, list(labels.values()))
        templates, source = read_templates(config.templates, folder)
        first = {label: p for p, label in reversed(labels.items())}
        index_of = {label: classes.index_of(label, data.uid(p)) for label, p in first.items()}
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        gallery = read_gallery(model, reader, places, "zero_shot", scoring.by == "embeddings")
        truth = np.array([index_of[labels[p]] for p in gallery.places])
        scale = probability_scale(model, scoring)
        sets = {"ensemble": templates, "single_prompt": (SINGLE,), "bare_name": (BARE,)}
        score = prompt_scorer(model, reader, gallery, classes.names, sets, scoring)
        guesses = {name: guess(score(prompts), classes.names, truth, scale) for name, prompts in sets.items()}
        counts = np.bincount(truth, minlength=len(classes.labels))
        settings = {
            "classes_from": classes.source,
            "class_names": list(classes.names),
            "templates_from": source,
            "template_list": list(templates),
            "label_field": field,
            "images": len(truth),
            "broken_images": describe_broken(reader),
            "majority_class": classes.labels[int(counts.argmax())],
            "majority_share": float(counts.max() / counts.sum()),
            "scored_by": scoring.by,
            "logit_scale": scale,
        }
        metrics = self._metrics(guesses, truth, counts, _clusters(gallery))
        tables = self._tables(data, gallery, classes, guesses, truth, counts) if artifacts else {}
        return config.result(
            model,
            data,
            metrics=metrics,
            settings=settings,
            items=self._items(data, gallery, guesses, truth, counts) if artifacts else {},
            artifacts=tables,
        )

    def _metrics(
        self,
        guesses: dict[str, Guesses],
        truth: Int64[np.ndarray, " n"],
        counts: Int64[np.ndarray, " c"],
        clusters: Int64[np.ndarray, " n"],
    ) -> dict[str, Estimate]:
        how: dict[str, Any] = {"samples": self.config.bootstrap, "seed": self.config.seed}
        best, num_classes = guesses["ensemble"], len(counts)
        hits = best.predicted == truth
        metrics = {"acc_at_1": share_estimate(hits, clusters, 1 / num_classes, **how)}
        if num_classes > 5:
            metrics["acc_at_5"] = share_estimate(best.in_top_5, clusters, 5 / num_classes, **how)
        present = counts > 0
        per_class = np.bincount(truth[hits], minlength=num_classes)
        metrics["mean_per_class_recall"] = stratified_mean(per_class[present], counts[present], 1 / num_classes, **how)
        for name in ("single_prompt", "bare_name"):
            right = guesses[name].predicted == truth
            metrics[f"acc_at_1_{name}"] = share_estimate(right, clusters, 1 / num_classes, **how)
            test = paired_difference(hits, right, clusters, seed=self.config.seed)
            metrics[f"gain_over_{name}"] = Estimate(
                value=test.difference, low=test.low, high=test.high, chance=0.0, n=test.n
            )
        if best.confidence is not None:
            metrics["ece"] = calibration_error(best.confidence, hits, clusters=clusters, **how)
        return metrics

    def _tables(
        self,
        split: Any,
        gallery: Gallery,
        classes: Classes,
        guesses: dict[str, Guesses],
        truth: Int64[np.ndarray, " n"],
        counts: Int64[np.ndarray, " c"],
    ) -> dict[str, Any]:
        best, size, clusters = guesses["ensemble"], len(counts), _clusters(gallery)
        confusion = np.bincount(truth * size + best.predicted, minlength=size * size).reshape(size, size)
        wrong = confusion - np.diag(np.diag(confusion))
        pairs = np.argsort(-wrong, axis=None, kind="stable")[:50]
        names = classes.labels
        return {
            "per_class": [
                {"name": names[c], "n": int(counts[c]), **_recall(int(confusion[c, c]), int(counts[c]), size)}
                for c in np.flatnonzero(counts).tolist()
            ],
            "absent_classes": [names[c] for c in np.flatnonzero(counts == 0).tolist()],
            "confusion": {"classes": list(names), "matrix": confusion.tolist()} if size <= 200 else {},  # rows: truth
            "prompts": [
                {"name": name.replace("_", " "), **_share(g.predicted == truth, clusters, size)}
                for name, g in guesses.items()
            ],
            "top_confusions": [
                {"class": names[p // size], "predicted": names[p % size], "count": int(wrong.flat[p])}
                for p in pairs.tolist()
                if wrong.flat[p] > 0
            ],
            "ensemble_against": {
                name: _against(best, guesses[name], truth, clusters) for name in ("single_prompt", "bare_name")
            },
            "calibration": _reliability(best.confidence, best.predicted == truth),
            "mistakes": self._mistakes(split, gallery, names, best, truth),
        }

    def _items(
        self,
        split: Any,
        gallery: Gallery,
        guesses: dict[str, Guesses],
        truth: Int64[np.ndarray, " n"],
        counts: Int64[np.ndarray, " c"],
    ) -> dict[str, ItemTable]:
        best = guesses["ensemble"]
        hits = best.predicted == truth
        values = {"acc_at_1": hits}
        if len(counts) > 5:
            values["acc_at_5"] = best.in_top_5
        # so weighted, their mean is the mean over the classes
        values["mean_per_class_recall"] = hits * len(truth) / (np.count_nonzero(counts) * counts[truth])
        for name in ("single_prompt", "bare_name"):
            right = guesses[name].predicted == truth
            values |= {f"acc_at_1_{name}": right, f"gain_over_{name}": hits.astype(float) - right}
        return {"images": item_table(map(split.uid, gallery.places), values, _clusters(gallery))}

    def _mistakes(
        self, split: Any, gallery: Gallery, names: tuple[str, ...], best: Guesses, truth: Int64[np.ndarray, " n"]
    ) -> list[dict[str, Any]]:
        wrong = np.flatnonzero(best.predicted != truth)
        if best.confidence is not None:
            wrong = wrong[np.argsort(-best.confidence[wrong], kind="stable")]
        return [
            {
                "uid": split.uid(gallery.places[i]),
                "thumb": thumbnail(split, gallery.places[i]),
                "class": names[truth[i]],
                "predicted": names[best.predicted[i]],
                "confidence": None if best.confidence is None else float(best.confidence[i]),
            }
            for i in wrong[: self.config.pictures].tolist()
        ]


def _reliability(confidence: np.ndarray | None, hits: Bool[np.ndarray, " n"]) -> list[dict[str, float | int]]:
    bins = () if confidence is None else reliability_bins(confidence, hits)
    return [{"n": b.n, "confidence": b.confidence, "accuracy": b.accuracy} for b in bins]


def _recall(hits: int, n: int, num_classes: int) -> dict[str, float]:
    e = proportion(hits, n, 1 / num_classes)
    return {"recall": e.value, "low": e.low, "high": e.high, "chance": 1 / num_classes}


def _share(hits: Bool[np.ndarray, " n"], clusters: Int64[np.ndarray, " n"], num_classes: int) -> dict[str, float]:
    e = share_estimate(hits, clusters, 1 / num_classes)
    return {"value": e.value, "low": e.low, "high": e.high, "chance": 1 / num_classes}


def _against(
    best: Guesses, other: Guesses, truth: Int64[np.ndarray, " n"], clusters: Int64[np.ndarray, " n"]
) -> dict[str, Any]:
    return paired_values(paired_difference(best.predicted == truth, other.predicted == truth, clusters))


def _clusters(gallery: Gallery) -> Int64[np.ndarray, " n"]:
    return distinct(gallery.hashes)
