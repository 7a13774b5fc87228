"""Calibration: of what a model is 80 % sure, is it right in 80 %? As it is, and after one number is fitted."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.calibration_error import (
    Binning,
    Bins,
    Noise,
    calibration_error,
    noise_level,
    plain_error,
    reliability_bins,
    resampled_errors,
)
from diptych.evals.class_guesses import class_scores, probability_scale, prompt_scorer
from diptych.evals.class_labels import ClassConfig, read_labels
from diptych.evals.eval import Estimate, Eval, EvalResult, ItemTable
from diptych.evals.frozen_features import held_out
from diptych.evals.items import item_table
from diptych.evals.open_data import open_data
from diptych.evals.prompts import Classes, read_classes, read_templates
from diptych.evals.scoring import (
    choose_places,
    choose_scoring,
    dataset_folder,
    describe_broken,
    distinct,
    read_gallery,
)
from diptych.evals.statistics import bootstrap_mean, share_estimate
from diptych.evals.temperature import fit_scale, probabilities
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Reliability, Words

_ROUNDING = 1e-12


class CalibrationConfig(ClassConfig):
    """Settings of the calibration eval.

    fit_split  a split of the same data on which the temperature is fitted; empty: on half of the images, drawn by a
               permutation, and the other half is judged
    binning    bins of the ECE: "equal_width" over 0..1, or "equal_mass"
    """

    fit_split: str = ""
    binning: Binning = "equal_width"
    bins: int = Field(15, ge=1)

    quick: ClassVar[dict[str, Any] | None] = {"max_items": 1000}
    full: ClassVar[dict[str, Any] | None] = {"max_items": 10_000}

    def build(self) -> "Calibration":
        """The eval."""
        return Calibration(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also without labels, or without a scale that makes scores probabilities."""
        reason = super().unsuited(model, data)
        if reason:
            return reason
        field, labels = self.looked_at(data)
        if not all(labels) or any(isinstance(x, (list, tuple)) for found in labels for x in found):
            return f"its records have no one {field} each in their meta"
        scoring = choose_scoring(model, self, "calibration")
        return "" if probability_scale(model, scoring) is not None else "its scores have no scale: no probabilities"


class Scored(NamedTuple):
    """Images with their scores for every class (before any scale), and which class is right."""

    uids: list[str]
    scores: Float[Tensor, "n c"]
    truth: Int64[np.ndarray, " n"]
    clusters: Int64[np.ndarray, " n"]

    def some(self, keep: Bool[np.ndarray, " n"]) -> "Scored":
        """Those of a mask."""
        uids = [uid for uid, kept in zip(self.uids, keep, strict=True) if kept]
        return Scored(uids, self.scores[torch.from_numpy(keep)], self.truth[keep], self.clusters[keep])


class Confidences(NamedTuple):
    """What the judged images come to at one scale: the peak of the softmax, -log p and the Brier score of each."""

    confidence: Float64[np.ndarray, " n"]
    nll: Float64[np.ndarray, " n"]
    brier: Float64[np.ndarray, " n"]


class Calibration(Eval):
    """ECE, negative log-likelihood and Brier score of zero-shot probabilities at the scale that the model learned, and
    after a temperature is fitted on other images; the gain of the fit is paired by image.

    ECE: Guo et al., arXiv:1706.04599 (15 equal-width bins, L1), which also fits one temperature by likelihood. NLL in
    nats; Brier: the sum over classes of (p - truth)^2 (Brier, 1950), of which chance is a uniform p. The headline is
    the NLL after the fit, since an ECE has no level of guessing: who is never sure is calibrated as well.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "nll_fitted"
    best: ClassVar[float] = 0.0

    def __init__(self, config: CalibrationConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Judge the probabilities for the split `data`, whose records must say their class in their meta."""
        config = self.config
        folder = dataset_folder(config.data, data)
        field, labels = read_labels(data, choose_places(data, config.max_items), config.label_field)
        classes = read_classes(config.classes, folder, list(labels.values()))
        templates, source = read_templates(config.templates, folder)
        scale = probability_scale(model, choose_scoring(model, config, "calibration"))
        if scale is None:
            raise EvalError(
                "calibration must be asked of a model whose scores have a scale that makes them probabilities; got "
                f"{type(model.model).__name__} without log_logit_scale, or log p by token. Leave per_token out."
            )
        scored, about = self._scored(model, data, list(labels), field, classes, templates)
        if config.fit_split:
            other = self._fit_split(config.fit_split, data, folder)
            fitted_on, _ = self._scored(model, other, list(range(len(other))), field, classes, templates)
            judged = scored
        else:
            mask = self._half(scored.clusters)
            fitted_on, judged = scored.some(mask), scored.some(~mask)
        fitted = fit_scale(fitted_on.scores, fitted_on.truth)
        before, after = (_at(judged, s) for s in (scale, fitted))
        hits = judged.scores.argmax(1).numpy() == judged.truth
        metrics, noise = self._metrics(judged, hits, before, after)
        about |= {
            "classes_from": classes.source,
            "class_names": list(classes.names),
            "templates_from": source,
            "template_list": list(templates),
            "label_field": field,
            "logit_scale": scale,
            "fitted_scale": fitted,
            "temperature": scale / fitted if fitted else None,
            "fitted_on": config.fit_split or "half of the images",
            "fit_images": len(fitted_on.truth),
            "images": len(judged.truth),
            **{f"ece{n}_by_noise": x._asdict() for n, x in noise.items()},
        }
        return config.result(
            model,
            data,
            metrics=metrics,
            settings=about,
            items=_items(judged, hits, before, after) if artifacts else {},
            figures=self._figures(hits, before, after, metrics, about) if artifacts else (),
        )

    def _scored(
        self,
        model: Pretrained,
        split: Any,
        places: list[int],
        field: str,
        classes: Classes,
        templates: tuple[str, ...],
    ) -> tuple[Scored, dict[str, Any]]:
        scoring = choose_scoring(model, self.config, "calibration")
        reader = ImageReader(split, model.model.config.image_format, self.config.batch_size)
        gallery = read_gallery(model, reader, places, "calibration", scoring.by == "embeddings")
        _, labels = read_labels(split, gallery.places, field)
        truth = np.array([classes.index_of(labels[p], split.uid(p)) for p in gallery.places], dtype=np.int64)
        score = prompt_scorer(model, reader, gallery, classes.names, {"ensemble": templates}, scoring)
        rows = torch.cat([s for _, s in class_scores(score(templates), len(classes.names), len(truth))])
        about = {"scored_by": scoring.by, "broken_images": describe_broken(reader)}
        return Scored([split.uid(p) for p in gallery.places], rows, truth, distinct(gallery.hashes)), about

    def _fit_split(self, name: str, data: Any, folder: Any) -> Any:
        if name == data.name or not folder:
            raise EvalError(
                f"a temperature must be fitted on other images than are judged; got fit_split={name} for the split "
                f"{data.name}. Name another split of the same data, or leave it out: half of the images are taken."
            )
        return open_data(self.config.data or folder).split(name)

    def _half(self, clusters: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """A mask of half of the images, equal ones always on the same side."""
        label = np.unique(clusters, return_inverse=True)[1]
        count = int(label.max()) + 1
        if count < 4:
            raise EvalError(
                f"calibration must have at least 4 different images, half of them to fit on; got {count}. "
                "Evaluate more images, or name a split to fit on: fit_split=train."
            )
        return held_out(count, 0.5, self.config.seed, "calibration")[label]

    def _metrics(
        self, judged: Scored, hits: Bool[np.ndarray, " n"], before: Confidences, after: Confidences
    ) -> tuple[dict[str, Estimate], dict[str, Noise]]:
        c, clusters = self.config, judged.clusters
        size = judged.scores.shape[1]
        how: dict[str, Any] = {"samples": c.bootstrap, "seed": c.seed}
        bins = Bins(c.binning, c.bins)
        levels = {"nll": float(np.log(size)), "brier": 1 - 1 / size}
        found: dict[str, Estimate] = {}
        noise = {}
        for name, at in (("", before), ("_fitted", after)):
            found[f"ece{name}"] = calibration_error(at.confidence, hits, clusters=clusters, bins=bins, **how)
            noise[name] = noise_level(at.confidence, hits, bins=bins, **how)
            for metric, chance in levels.items():
                found[f"{metric}{name}"] = _mean(getattr(at, metric), clusters, chance, **how)
            found[f"overconfidence{name}"] = _mean(at.confidence - hits, clusters, None, **how)
        found["ece_gain"] = _gain(
            lambda at: plain_error(at.confidence, hits, bins),
            lambda at: resampled_errors(at.confidence, hits, c.bootstrap, c.seed, clusters, bins),
            before,
            after,
            found["ece"].n,
        )
        for metric in levels:
            gain = _mean(getattr(before, metric) - getattr(after, metric), clusters, None, **how)
            found[f"{metric}_gain"] = gain.replace(higher_is_better=True)
        found["acc_at_1"] = share_estimate(hits, clusters, 1 / size, **how)
        return found, noise

    def _figures(
        self,
        hits: Bool[np.ndarray, " n"],
        before: Confidences,
        after: Confidences,
        metrics: dict[str, Estimate],
        about: dict[str, Any],
    ) -> tuple[Figure, ...]:
        bins = Bins(self.config.binning, self.config.bins)
        noise = {n: Noise(**about[f"ece{n}_by_noise"]) for n in ("", "_fitted")}
        rows = tuple(
            (
                title,
                f"{scale:.4g}",
                f"{metrics['ece' + n].value:.4f}",
                f"{noise[n].mean:.4f} (up to {noise[n].most:.4f})",
                verdict(noise[n], metrics["overconfidence" + n]),
            )
            for n, title, scale in (
                ("", "as learned", about["logit_scale"]),
                ("_fitted", "fitted", about["fitted_scale"]),
            )
        )
        head = ("scale", "value", "ECE", "of a calibrated model, by noise", "verdict")
        return (
            Words(
                title="Does it mean what it says?",
                words=f"Fitted on {about['fitted_on']} ({about['fit_images']:,}), judged on {about['images']:,}.",
                head=head,
                rows=rows,
                numeric=(1, 2),
            ),
            Reliability(title="As learned", bins=reliability_bins(before.confidence, hits, bins)),
            Reliability(title="Fitted", bins=reliability_bins(after.confidence, hits, bins)),
            Intervals(
                title="What the fit gains",
                words="Before less after, of the same images: to the right of zero the fit helps.",
                rows=tuple(
                    Interval(name=n.upper() if n != "brier" else "Brier", value=e.value, low=e.low, high=e.high, n=e.n)
                    for n, e in ((n, metrics[f"{n}_gain"]) for n in ("ece", "nll", "brier"))
                ),
                percent=False,
            ),
        )


def verdict(noise: Noise, over: Estimate) -> str:
    """What may be said: "overconfident", "underconfident", "miscalibrated", or "not told from calibrated"."""
    if noise.p_value >= 0.05:
        return "not told from calibrated"
    if over.low > 0:
        return "overconfident"
    return "underconfident" if over.high < 0 else "miscalibrated"


def _at(judged: Scored, scale: float) -> Confidences:
    log_p = probabilities(judged.scores, scale)
    truth = torch.from_numpy(judged.truth)[:, None]
    p = log_p.exp()
    brier = (p**2).sum(1) - 2 * p.gather(1, truth)[:, 0] + 1
    return Confidences(p.amax(1).numpy(), -log_p.gather(1, truth)[:, 0].numpy(), brier.numpy())


def _items(
    judged: Scored, hits: Bool[np.ndarray, " n"], before: Confidences, after: Confidences
) -> dict[str, ItemTable]:
    values: dict[str, np.ndarray] = {"acc_at_1": hits}
    for name, at in (("", before), ("_fitted", after)):
        values |= {f"nll{name}": at.nll, f"brier{name}": at.brier, f"overconfidence{name}": at.confidence - hits}
    values |= {f"{m}_gain": getattr(before, m) - getattr(after, m) for m in ("nll", "brier")}
    return {"images": item_table(judged.uids, values, judged.clusters)}


def _mean(
    values: Float64[np.ndarray, " n"],
    clusters: Int64[np.ndarray, " n"],
    chance: float | None,
    samples: int,
    seed: int,
) -> Estimate:
    """A mean with its interval; of values that do not differ at all, that value alone."""
    value, n = float(values.mean()), len(np.unique(clusters))
    if np.ptp(values) <= _ROUNDING:
        low, high = value - _ROUNDING, value + _ROUNDING
    else:
        low, high = bootstrap_mean(values, clusters, samples, seed)
    return Estimate(value=value, low=min(low, value), high=max(high, value), chance=chance, n=n, higher_is_better=False)


def _gain(
    error: Callable[[Confidences], float],
    draws: Callable[[Confidences], list[np.ndarray]],
    before: Confidences,
    after: Confidences,
    n: int,
) -> Estimate:
    """The ECE before less after, resampled together."""
    value = error(before) - error(after)
    low, high = np.quantile(np.concatenate(draws(before)) - np.concatenate(draws(after)), (0.025, 0.975))
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=n)
