"""Zero-shot classification: which class's words lie closest to an image? On the user's own classes, untrained."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from diptych.core.config import to_dict
from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.eval import Estimate, Eval, EvalResult, ItemTable
from diptych.evals.items import item_table
from diptych.evals.prompts import BARE, SINGLE, Classes, fill, read_classes, read_templates
from diptych.evals.ranking import check_finite
from diptych.evals.scoring import (
    PAIRS_SIDE,
    EmbeddedItems,
    Gallery,
    Items,
    PairScoringConfig,
    ScoredItems,
    Scoring,
    SomeTexts,
    choose_places,
    choose_scoring,
    dataset_folder,
    describe_broken,
    distinct,
    paired_values,
    read_gallery,
    thumbnail,
)
from diptych.evals.statistics import bootstrap_weights, paired_difference, proportion, share_estimate, stratified_mean
from diptych.models.pretrained import Pretrained

PROMPTS = 8192
"""Prompts whose vectors are held at once."""

BINS = 15
"""Equal-width bins of the calibration error, as in Guo et al., "On Calibration of Modern Neural Networks", 2017."""


class ZeroShotConfig(PairScoringConfig):
    """Settings of the zero-shot eval."""

    classes: str | tuple[str, ...] = ""
    """A file with a class a line (name, or label<TAB>name), or the names; empty: the dataset's classes.txt, else the
    labels of the split."""
    templates: str | tuple[str, ...] = ""
    """A file with a prompt a line, or "clip", "simple", "plain"; empty: the dataset's templates.txt, else "clip"."""
    label_field: str = ""
    """Which value of a record's meta is its class (a label, or a line of the classes); empty: label or class_index."""
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(24, ge=0)
    """How many of the most confident mistakes go into the report."""

    def build(self) -> "ZeroShot":
        """The eval."""
        return ZeroShot(self)


class Guesses(NamedTuple):
    """What a set of prompts says of every image. `confidence` is the softmax's peak at the model's own scale."""

    predicted: Int64[np.ndarray, " n"]
    in_top_5: Bool[np.ndarray, " n"]
    confidence: Float64[np.ndarray, " n"] | None


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
        places = choose_places(data, config.max_items)
        field, labels = read_labels(data, places, config.label_field)
        classes = read_classes(config.classes, folder, list(labels.values()))
        templates, source = read_templates(config.templates, folder)
        first = {label: p for p, label in reversed(labels.items())}
        index_of = {label: classes.index_of(label, data.uid(p)) for label, p in first.items()}
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        scoring = choose_scoring(model, config, "zero_shot")
        gallery = read_gallery(model, reader, places, "zero_shot", scoring.by == "embeddings")
        truth = np.array([index_of[labels[p]] for p in gallery.places])
        scale = _scale(model, scoring)
        sets = {"ensemble": templates, "single_prompt": (SINGLE,), "bare_name": (BARE,)}
        score = _scorer(model, reader, gallery, classes.names, sets, scoring)
        guesses = {name: guess(score(prompts), classes.names, truth, scale) for name, prompts in sets.items()}
        counts = np.bincount(truth, minlength=len(classes.labels))
        settings = {
            **{k: v for k, v in to_dict(config).items() if k != "kind"},
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
        return EvalResult(
            task="zero_shot",
            data=config.data,
            split=str(data.name),
            metrics=metrics,
            settings=settings,
            items=self._items(data, gallery, guesses, truth, counts) if artifacts else {},
            artifacts=tables,
            fingerprint=model.fingerprint,
        )

    def _metrics(
        self,
        guesses: dict[str, Guesses],
        truth: Int64[np.ndarray, " n"],
        counts: Int64[np.ndarray, " c"],
        clusters: Int64[np.ndarray, " n"],
    ) -> dict[str, Estimate]:
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
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
        if best.confidence is not None:
            metrics["ece"] = calibration_error(best.confidence, hits, **how)
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
        values |= {f"acc_at_1_{name}": guesses[name].predicted == truth for name in ("single_prompt", "bare_name")}
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


def read_labels(split: Any, places: list[int], field: str) -> tuple[str, dict[int, Any]]:
    """Each record's label and the meta field that it comes from (`field`; empty: label, else class_index)."""
    meta = {p: split.meta(p) for p in places}
    if not field:
        field = next((f for f in ("label", "class_index") if any(f in m for m in meta.values())), "label")
    missing = [p for p, m in meta.items() if m.get(field) is None]
    if missing:
        has = sorted({key for m in meta.values() for key in m})
        raise EvalError(
            f"every record must have {field!r} in its meta; got {len(missing)} of {len(places)} without, the first "
            f"{split.uid(missing[0])}. Name another with label_field; there are: {', '.join(has) or 'none'}."
        )
    for p, m in meta.items():
        if not isinstance(m[field], (str, int)):
            raise EvalError(
                f"a label must be a text or a whole number; got {m[field]!r} as {field!r} of record {split.uid(p)}. "
                "Give each image one label, or name another field with label_field."
            )
    return field, {p: m[field] for p, m in meta.items()}


def class_vectors(model: Pretrained, names: tuple[str, ...], templates: tuple[str, ...]) -> Float[Tensor, "c e"]:
    """The mean of each class's unit prompt vectors, made unit again.

    Prompts go to the model a template after the other, where they begin alike, and many at a time.
    """
    total, some = torch.zeros(()), max(1, PROMPTS // len(names))
    for part in (templates[i : i + some] for i in range(0, len(templates), some)):
        vectors = normalize(model.embed_text([fill(t, n) for t in part for n in names]), dim=1)
        total = total + vectors.unflatten(0, (len(part), len(names))).sum(0)
    return normalize(total, dim=1)


def guess(
    items: SomeTexts | EmbeddedItems, names: tuple[str, ...], truth: Int64[np.ndarray, " n"], scale: float | None
) -> Guesses:
    """Classify every image by the scores of its prompts, some rows at a time: of each template in turn every class's
    (averaged over the templates), or of every class's vector."""
    step = PAIRS_SIDE if isinstance(items, SomeTexts) else max(1, (1 << 22) // len(names))
    predicted, in_top_5, confidence = [], [], []
    for start in range(0, len(truth), step):
        rows = items.rows(start, min(start + step, len(truth)))
        check_finite(rows)
        scores = rows.unflatten(1, (-1, len(names))).mean(1)  # (b, c)
        predicted.append(scores.argmax(1))
        target = torch.from_numpy(truth[start : start + step])
        in_top_5.append((scores.topk(min(5, len(names)), 1).indices == target[:, None]).any(1))
        if scale is not None:
            confidence.append((scores.double() * scale).softmax(1).amax(1))
    return Guesses(
        torch.cat(predicted).numpy(), torch.cat(in_top_5).numpy(), torch.cat(confidence).numpy() if confidence else None
    )


def _scorer(
    model: Pretrained,
    reader: ImageReader,
    gallery: Gallery,
    names: tuple[str, ...],
    sets: Mapping[str, tuple[str, ...]],
    scoring: Scoring,
) -> Callable[[tuple[str, ...]], SomeTexts | EmbeddedItems]:
    """From templates to what scores them. Where pairs are scored, every prompt of every set is scored in one pass."""
    vectors = gallery.vectors
    if vectors is not None:
        return lambda templates: EmbeddedItems(vectors, class_vectors(model, names, templates))
    prompts = list(dict.fromkeys(fill(t, n) for templates in sets.values() for t in templates for n in names))
    items: Items = ScoredItems(model, reader, gallery.places, prompts, scoring)
    column = {prompt: i for i, prompt in enumerate(prompts)}
    return lambda templates: SomeTexts(items, [column[fill(t, n)] for t in templates for n in names])


def calibration_error(
    confidence: Float64[np.ndarray, " n"], hits: Bool[np.ndarray, " n"], samples: int = 1000, seed: int = 0
) -> Estimate:
    """The expected calibration error: |accuracy - confidence| over 15 equal bins, weighted by how full they are."""
    n = len(hits)
    place = _bins(confidence)
    gap = np.zeros((n, BINS))
    gap[np.arange(n), place] = hits - confidence
    draws = np.concatenate([np.abs(w @ gap).sum(1) / n for w in bootstrap_weights(n, samples, seed, "ece")])
    value = float(np.abs(gap.sum(0)).sum() / n)
    low, high = (float(q) for q in np.quantile(draws, (0.025, 0.975)))
    # resampling adds noise, and noise only ever adds to a sum of absolute values: keep the value inside
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=n, higher_is_better=False)


def _bins(confidence: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _reliability(confidence: np.ndarray | None, hits: Bool[np.ndarray, " n"]) -> list[dict[str, float | int]]:
    if confidence is None:
        return []
    place = _bins(confidence)
    return [
        {
            "n": int((place == b).sum()),
            "confidence": float(confidence[place == b].mean()),
            "accuracy": float(hits[place == b].mean()),
        }
        for b in np.unique(place).tolist()
    ]


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


def _scale(model: Pretrained, scoring: Scoring) -> float | None:
    """What makes scores probabilities: the learned logit scale, or 1 for log p, which are (of whole texts) already."""
    if scoring.by == "log_likelihood":
        return None if scoring.per_token else 1.0
    log_scale = getattr(model.model, "log_logit_scale", None)
    return None if log_scale is None else float(torch.as_tensor(log_scale).detach().exp())
