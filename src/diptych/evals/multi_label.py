"""Zero-shot classification of images that have several labels, or none: for each class, are its images ranked first?"""

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.average_precision import Interpolation, average_precision, chance_precision
from diptych.evals.class_guesses import class_scores, prompt_scorer
from diptych.evals.class_labels import ClassConfig, read_label_lists
from diptych.evals.eval import Estimate, Eval, EvalResult
from diptych.evals.items import item_table
from diptych.evals.prompts import read_classes, read_templates
from diptych.evals.scoring import (
    choose_places,
    choose_scoring,
    dataset_folder,
    describe_broken,
    distinct,
    read_gallery,
)
from diptych.evals.statistics import bootstrap_weights, share_estimate
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Words

_CELLS = 1 << 22


class MultiLabelConfig(ClassConfig):
    """Settings of the multi-label eval: classes, templates and label_field as in zero_shot; each record's label is a
    list. `interpolation`: of precision, "none" (scikit-learn, CLIP_benchmark) or "11_point" (PASCAL VOC 2007)."""

    interpolation: Interpolation = "none"

    quick: ClassVar[dict[str, Any] | None] = {"max_items": 1000}
    full: ClassVar[dict[str, Any] | None] = {"max_items": 5000}

    def build(self) -> "MultiLabel":
        """The eval."""
        return MultiLabel(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records do not hold lists of labels."""
        field, labels = self.looked_at(data)
        lists = all(any(isinstance(x, (list, tuple)) for x in found) for found in labels)
        return super().unsuited(model, data) or ("" if lists else f"its records have no list {field} in their meta")


class MultiLabel(Eval):
    """mAP: the mean over classes of the average precision of all images, ranked by their score for the class.

    Classes of which no image is positive are left out and named. Chance is what random orders reach on average: the
    classes' prevalence and a little more. hit@1: whether an image's first class is one of its labels, over the images
    that have any. Intervals resample images.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "mean_average_precision"

    def __init__(self, config: MultiLabelConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`, whose records must hold a list of labels in their meta."""
        config = self.config
        folder = dataset_folder(config.data, data)
        field, labels = read_label_lists(data, choose_places(data, config.max_items), config.label_field)
        classes = read_classes(config.classes, folder, [x for found in labels.values() for x in found])
        templates, source = read_templates(config.templates, folder)
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        scoring = choose_scoring(model, config, "multi_label")
        gallery = read_gallery(model, reader, list(labels), "multi_label", scoring.by == "embeddings")
        positive = np.zeros((len(gallery.places), len(classes.names)), dtype=bool)
        for row, p in enumerate(gallery.places):
            positive[row, [classes.index_of(x, data.uid(p)) for x in labels[p]]] = True
        score = prompt_scorer(model, reader, gallery, classes.names, {"ensemble": templates}, scoring)
        rows = [s for _, s in class_scores(score(templates), len(classes.names), len(positive))]
        scores, clusters = torch.cat(rows).numpy(), distinct(gallery.hashes)
        there = np.flatnonzero(positive.any(0))
        if not len(there):
            raise EvalError(
                f"multi_label must have images with labels; got {len(positive)} whose {field!r} are empty lists. "
                "Evaluate more images, or name another field with label_field."
            )
        per_class = self._per_class(scores[:, there], positive[:, there], clusters)
        metrics = {"mean_average_precision": per_class.pop("")}
        labelled = np.asarray(positive.any(1))
        hits = positive[np.arange(len(positive)), scores.argmax(1)][labelled]
        share = float(positive[labelled].mean())
        how = {"samples": config.bootstrap, "seed": config.seed}
        metrics["hit_at_1"] = share_estimate(hits, clusters[labelled], share, **how)
        uids = [data.uid(p) for p, has in zip(gallery.places, labelled, strict=True) if has]
        absent = [classes.names[c] for c in np.flatnonzero(~positive.any(0)).tolist()]
        named = {classes.names[c]: per_class[str(i)] for i, c in enumerate(there.tolist())}
        settings = {
            "classes_from": classes.source,
            "class_names": list(classes.names),
            "absent_classes": absent,
            "templates_from": source,
            "template_list": list(templates),
            "label_field": field,
            "images": len(positive),
            "images_without_labels": int((~labelled).sum()),
            "labels_per_image": float(positive.sum(1).mean()),
            "broken_images": describe_broken(reader),
            "scored_by": scoring.by,
        }
        return config.result(
            model,
            data,
            metrics=metrics,
            settings=settings,
            items={"images": item_table(uids, {"hit_at_1": hits}, clusters[labelled])} if artifacts else {},
            figures=_figures(named, absent, positive.sum(0)[there]) if artifacts else (),
        )

    def _per_class(
        self,
        scores: Shaped[np.ndarray, "n c"],
        positive: Bool[np.ndarray, "n c"],
        clusters: Int64[np.ndarray, " n"],
    ) -> dict[str, Estimate]:
        """The average precision of each class by its number, and under "" their mean, with intervals over images."""
        c, (n, size) = self.config, scores.shape
        label = np.unique(clusters, return_inverse=True)[1]
        count = int(label.max()) + 1
        values = np.array(
            [average_precision(scores[:, i], positive[:, i], None, c.interpolation)[0] for i in range(size)]
        )
        draws: list[Float64[np.ndarray, "s c"]] = []
        for block in bootstrap_weights(count, c.bootstrap, c.seed, "mean_average_precision"):
            for weights in np.array_split(block, max(1, block.shape[0] * n // _CELLS)):
                w = weights[:, label]
                rows = [average_precision(scores[:, i], positive[:, i], w, c.interpolation) for i in range(size)]
                draws.append(np.stack(rows, 1))
        drawn = np.concatenate(draws)
        chance = np.array([chance_precision(int(p), n) for p in positive.sum(0)])
        found = {"": _estimate(float(values.mean()), np.nanmean(drawn, axis=1), float(chance.mean()), count)}
        for i in range(size):
            found[str(i)] = _estimate(float(values[i]), drawn[:, i], float(chance[i]), count)
        return found


def _estimate(value: float, draws: Float64[np.ndarray, " s"], chance: float, n: int) -> Estimate:
    """A value with its percentile interval; a draw without any positive image tells nothing."""
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), chance=chance, n=n)


def _figures(named: dict[str, Estimate], absent: list[str], positives: Int64[np.ndarray, " c"]) -> tuple[Figure, ...]:
    order = sorted(named, key=lambda name: -named[name].value)
    count = dict(zip(named, positives.tolist(), strict=True))
    rows = tuple(
        Interval(name=n, value=e.value, low=e.low, high=e.high, chance=e.chance, n=count[n])
        for n, e in ((n, named[n]) for n in order[:60])
    )
    words = "How far a class's images stand in front; the dash is a random order, n the images that have the label."
    table = tuple((n, f"{named[n].value:.1%}", f"{named[n].chance:.1%}", str(count[n])) for n in order)
    found: list[Figure] = [
        Intervals(title="Average precision by class", words=words, rows=rows),
        Words(title="Classes", head=("class", "AP", "chance", "images"), rows=table, numeric=(1, 2, 3)),
    ]
    if absent:
        found.append(
            Words(title="Classes of which there is no image", head=("class",), rows=tuple((a,) for a in absent))
        )
    return tuple(found)
