"""Few shots: how well is a class known from one, two, four, eight, sixteen images of it?"""

import math
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn.functional import normalize

from diptych.core.errors import EvalError
from diptych.core.seeds import permute
from diptych.evals.eval import Estimate, Eval, EvalResult
from diptych.evals.frozen_features import FeaturesConfig, Labelled, ProbeData, read_probe_data
from diptych.evals.items import item_table
from diptych.evals.linear_probe import fit_logistic, has_sklearn, require_sklearn
from diptych.evals.statistics import mean_estimate
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Lines, Words


class FewShotConfig(FeaturesConfig):
    """Settings of the few-shot eval.

    shots   images of each class to learn from; a class that has fewer is left out of that number, and named
    draws   how often they are drawn anew
    method  "probe": logistic regression with a fixed C, there being no images to choose it on; "nearest_mean": the
            class whose mean of unit features is nearest by cosine
    C       of the probe, as in scikit-learn: 100 hardly holds unit vectors back, as it must be with so few of them
    """

    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    draws: int = Field(5, ge=3)
    method: Literal["probe", "nearest_mean"] = "probe"
    C: float = Field(100.0, gt=0)

    full: ClassVar[dict[str, Any] | None] = {"max_items": 5000, "max_train": 20_000}

    @field_validator("shots", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("shots")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 1 or len(set(value)) < len(value):
            raise ValueError(f"FewShotConfig.shots must be positive numbers, each once; got {value}.")
        return tuple(sorted(value))

    def build(self) -> "FewShot":
        """The eval."""
        return FewShot(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also without scikit-learn, where a probe is asked for."""
        lacking = self.method == "probe" and not has_sklearn()
        return super().unsuited(model, data) or ("scikit-learn is not installed" if lacking else "")


class Shots(NamedTuple):
    """One number of shots: the classes that have enough images, which judged images are of these, and whether each
    draw was right about each of them. `accuracy` over images and draws has the spread of both in its interval."""

    shots: int
    classes: Int64[np.ndarray, " k"]
    judged: Bool[np.ndarray, " n"]
    hits: Bool[np.ndarray, "r m"]
    accuracy: Estimate

    @property
    def name(self) -> str:
        """The metric."""
        return f"acc_at_1_{self.shots}_shot"


class FewShot(Eval):
    """acc@1 after 1, 2, 4, 8, 16 images of each class, a mean over draws; the classes of a number of shots are those
    that have so many images to learn from, and only their images are judged.

    Few-shot probes: Radford et al., arXiv:2103.00020, 3.1.4; nearest class mean: Mensink et al., 2013. The interval
    has in it which images are judged and which were drawn: the bootstrap's half width over images, and Student's t of
    the draws' means, added as squares.
    """

    headline: ClassVar[str] = "acc_at_1"

    def __init__(self, config: FewShotConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Learn on a few images of the train split of the data that `data` belongs to, and judge on `data`."""
        config = self.config
        if config.method == "probe":
            require_sklearn("few_shot")
        probe = read_probe_data(config, model, data, "few_shot")
        size = len(probe.classes.names)
        counts = np.bincount(probe.train.truth, minlength=size)
        there = (counts > 0) | (np.bincount(probe.judged.truth, minlength=size) > 0)
        found, left_out = [], {}
        for shots in config.shots:
            enough = np.flatnonzero(counts >= shots)
            left_out[shots] = [probe.classes.names[c] for c in np.flatnonzero(there & (counts < shots)).tolist()]
            judged = np.isin(probe.judged.truth, enough)
            if len(enough) > 1 and judged.any():
                found.append(self._shots(probe, shots, enough, judged))
        if not found:
            raise EvalError(
                f"few_shot must have 2 classes with {min(config.shots)} images to learn from, and images of them to "
                f"judge; got {np.count_nonzero(counts >= min(config.shots))} such classes. Ask for fewer: shots=1."
            )
        best = found[-1]
        about = {
            **probe.about,
            "headline_shots": best.shots,
            "classes_left_out": {str(s): names for s, names in left_out.items()},
            "accuracy_by_draw": {str(s.shots): s.hits.mean(1).tolist() for s in found},
            "sd_over_draws": {str(s.shots): float(s.hits.mean(1).std(ddof=1)) for s in found},
        }
        return config.result(
            model,
            data,
            metrics={"acc_at_1": best.accuracy} | {s.name: s.accuracy for s in found},
            settings=about,
            items={s.name: self._items(probe.judged, s, s is best) for s in found} if artifacts else {},
            figures=self._figures(probe, found, left_out) if artifacts else (),
        )

    def _shots(
        self, probe: ProbeData, shots: int, classes: Int64[np.ndarray, " k"], judged: Bool[np.ndarray, " n"]
    ) -> Shots:
        config, train, kept = self.config, probe.train, probe.judged.some(judged)
        hits = []
        for draw in range(config.draws):
            few = train.some(np.concatenate([drawn(train.truth, int(c), shots, config.seed, draw) for c in classes]))
            hits.append(self._guess(few, kept.features, len(probe.classes.names)) == kept.truth)
        by_draw = np.stack(hits)  # (r, m)
        over_images = mean_estimate(by_draw.mean(0), kept.clusters, 1 / len(classes), config.bootstrap, config.seed)
        return Shots(shots, classes, judged, by_draw, _with_draws(over_images, by_draw.mean(1)))

    def _guess(self, few: Labelled, features: Float[Tensor, "m d"], num_classes: int) -> Int64[np.ndarray, " m"]:
        if self.config.method == "probe":
            learned = fit_logistic(few.features, few.truth, self.config.C)
            return learned.scores(features, num_classes).argmax(1).numpy()
        means, seen = class_means(few.features, few.truth, num_classes)
        cosines = normalize(features, dim=1).float() @ means.T
        return cosines.masked_fill(~seen, -torch.inf).argmax(1).numpy()

    def _items(self, judged: Labelled, shots: Shots, best: bool) -> Any:
        kept = judged.some(shots.judged)
        values = {shots.name: shots.hits.mean(0)} | ({"acc_at_1": shots.hits.mean(0)} if best else {})
        return item_table([judged.split.uid(p) for p in kept.places], values, kept.clusters)

    def _figures(self, probe: ProbeData, found: list[Shots], left_out: dict[int, list[str]]) -> tuple[Figure, ...]:
        means = [s.hits.mean(1) for s in found]
        tested = {s.shots for s in found}
        about = probe.about
        how = f"{about['features']}, {self.config.method.replace('_', ' ')}, {self.config.draws} draws"
        curve = Lines(
            title="How much a few images teach",
            words=f"Mean, best and worst of the draws ({how}).",
            x=tuple(float(s.shots) for s in found),
            series={
                "mean": tuple(float(m.mean()) for m in means),
                "best draw": tuple(float(m.max()) for m in means),
                "worst draw": tuple(float(m.min()) for m in means),
            },
            x_label="images of each class",
            y_label="accuracy",
        )
        rows = tuple(
            Interval(
                name=f"{s.shots} of each class",
                value=s.accuracy.value,
                low=s.accuracy.low,
                high=s.accuracy.high,
                chance=s.accuracy.chance,
                n=s.accuracy.n,
            )
            for s in found
        )
        table = Words(
            title="Classes with too few images",
            words="They are neither learned nor judged at that number of shots.",
            head=("shots", "classes left out", "which"),
            rows=tuple(
                (str(s), str(len(names)) if s in tested else "all: no two have so many", ", ".join(names[:20]))
                for s, names in left_out.items()
            ),
            numeric=(0,),
        )
        return (curve, Intervals(title="Accuracy by number of shots", words=how, rows=rows), table)


def drawn(truth: Int64[np.ndarray, " t"], label: int, shots: int, seed: int, draw: int) -> Int64[np.ndarray, " s"]:
    """Which train images of a class a draw takes: the first of its shuffled list, so that more shots hold the fewer."""
    own = np.flatnonzero(truth == label)
    return own[[permute(i, len(own), seed, "few_shot", draw, label) for i in range(shots)]]


def class_means(
    features: Float[Tensor, "t d"], truth: Int64[np.ndarray, " t"], num_classes: int
) -> tuple[Float[Tensor, "{num_classes} d"], Bool[Tensor, " {num_classes}"]]:
    """The mean of each class's unit features, made unit, and which classes have any."""
    sums = torch.zeros(num_classes, features.shape[1])
    sums.index_add_(0, torch.from_numpy(truth), normalize(features, dim=1).float())
    return normalize(sums, dim=1), torch.from_numpy(np.bincount(truth, minlength=num_classes) > 0)


def student_t(freedom: int) -> float:
    """Student's t that 95 % of draws lie within, on both sides. Its distribution by Abramowitz and Stegun, 26.7.3-4."""

    def within(t: float) -> float:
        angle = math.atan(t / math.sqrt(freedom))
        term = total = math.cos(angle) if freedom % 2 else 1.0
        for j in range(2 + freedom % 2, freedom - 1, 2):
            term *= math.cos(angle) ** 2 * (j - 1) / j
            total += term
        if freedom % 2:
            return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))
        return math.sin(angle) * total

    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < 0.95 else (low, middle)
    return high


def _with_draws(over_images: Estimate, means: Float[np.ndarray, " r"]) -> Estimate:
    """The estimate with the draws' spread added to its interval."""
    half = student_t(len(means) - 1) * float(means.std(ddof=1)) / len(means) ** 0.5
    value = over_images.value
    below, above = value - over_images.low, over_images.high - value
    return over_images.replace(
        low=max(0.0, value - float(np.hypot(below, half))), high=min(1.0, value + float(np.hypot(above, half)))
    )
