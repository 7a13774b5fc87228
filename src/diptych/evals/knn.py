"""Nearest neighbours: do images of one class lie together? Nothing is learned but where the train images are."""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn.functional import normalize

from diptych.core.errors import EvalError
from diptych.evals.class_results import (
    blind_chance,
    class_figures,
    class_items,
    class_metrics,
    predictions,
)
from diptych.evals.eval import Eval, EvalResult
from diptych.evals.frozen_features import FeaturesConfig, ProbeData, read_probe_data
from diptych.evals.items import item_table
from diptych.evals.statistics import share_estimate
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Lines, Words

CELLS = 1 << 24
"""Cosines that are held at once (64 MB)."""


class KnnConfig(FeaturesConfig):
    """Settings of nearest neighbours.

    k            how many neighbours vote; of several numbers the first gives the main metrics
    weights      "exponential": a neighbour counts exp(cosine / temperature) (DINO); "uniform": each counts one
    """

    k: tuple[int, ...] = (20,)
    weights: Literal["exponential", "uniform"] = "exponential"
    temperature: float = Field(0.07, gt=0)

    quick: ClassVar[dict[str, Any] | None] = {"max_train": 5000, "max_items": 1000}
    full: ClassVar[dict[str, Any] | None] = {"k": (20, 1, 5, 10, 50), "max_train": 20_000, "max_items": 5000}

    @field_validator("k", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("k")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 1 or len(set(value)) < len(value):
            raise ValueError(f"KnnConfig.k must be positive numbers, each once; got {value}. Write k=20 or k=10,20.")
        return value

    def build(self) -> "Knn":
        """The eval."""
        return Knn(self)


class Knn(Eval):
    """acc@1, acc@5 and mean per-class recall of the k nearest train images' weighted vote, by cosine of the features.

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", arXiv:2104.14294, F.1, after Wu et al.,
    arXiv:1805.01978: k = 20, weights exp(cos / 0.07).
    """

    headline: ClassVar[str] = "acc_at_1"

    def __init__(self, config: KnnConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Judge `data` by its neighbours in the train split of the data that it belongs to."""
        config = self.config
        probe = read_probe_data(config, model, data, "knn")
        size, judged, train = len(probe.classes.names), probe.judged, probe.train
        most = max(config.k)
        if most > len(train.truth):
            raise EvalError(
                f"k must be at most the number of images to learn from, {len(train.truth)}; got {most}. "
                "Ask for fewer neighbours: k=5."
            )
        cosines, labels = nearest(train.features, train.truth, judged.features, most)
        votes = {k: self._votes(cosines[:, :k], labels[:, :k], size) for k in config.k}
        guesses = {k: predictions(v, judged.truth) for k, v in votes.items()}
        how = {"samples": config.bootstrap, "seed": config.seed}
        first = guesses[config.k[0]]
        chance = blind_chance(train.truth, judged.truth)
        metrics = class_metrics(first, judged, size, chance, **how)
        items = class_items(first, judged, size)
        values = {n: np.array(v) for n, v in items["images"].values.items()}
        for k in config.k if len(config.k) > 1 else ():
            hits = guesses[k].predicted == judged.truth
            metrics[f"acc_at_1_k{k}"] = share_estimate(hits, judged.clusters, chance, **how)
            values[f"acc_at_1_k{k}"] = hits.astype(float)
        figures: tuple[Figure, ...] = ()
        if artifacts:
            figures = self._figures(probe, {k: metrics.get(f"acc_at_1_k{k}", metrics["acc_at_1"]) for k in config.k})
            figures += class_figures(first, judged, probe.classes, config.pictures)
        return config.result(
            model,
            data,
            metrics=metrics,
            settings=probe.about,
            items={"images": item_table(items["images"].keys, values, judged.clusters)} if artifacts else {},
            figures=figures,
        )

    def _votes(
        self, cosines: Float[Tensor, "n k"], labels: Int64[Tensor, "n k"], num_classes: int
    ) -> Float[Tensor, "n {num_classes}"]:
        """What each class's neighbours weigh together; -inf of a class without any among them."""
        weights = cosines.double()
        if self.config.weights == "exponential":
            weights = (weights / self.config.temperature).exp()
        else:
            weights = torch.ones_like(weights)
        votes = torch.zeros(len(labels), num_classes, dtype=torch.float64).scatter_add_(1, labels, weights)
        return votes.masked_fill(votes == 0, -torch.inf)

    def _figures(self, probe: ProbeData, by_k: dict[int, Any]) -> tuple[Figure, ...]:
        about = probe.about
        rows = (
            ("features", f"{about['features']}, {about['feature_size']} numbers, made unit"),
            ("images that vote", f"{about['train_images']:,}"),
            ("of them also judged", f"{about['train_images_also_judged']:,} ({self.config.duplicates})"),
            ("k", ", ".join(map(str, self.config.k))),
            ("weights", f"exp(cos / {self.config.temperature:g})" if self.config.weights == "exponential" else "equal"),
        )
        words = Words(title="The neighbours", head=("", ""), rows=rows)
        if len(by_k) == 1:
            return (words,)
        ks = sorted(by_k)
        curve = Lines(
            title="How many neighbours",
            x=tuple(float(k) for k in ks),
            series={"acc@1": tuple(by_k[k].value for k in ks)},
            x_label="k",
            y_label="accuracy",
            references={"blind": by_k[ks[0]].chance},
        )
        return (words, curve)


def nearest(
    train: Float[Tensor, "t d"], truth: Int64[np.ndarray, " t"], judged: Float[Tensor, "n d"], k: int
) -> tuple[Float[Tensor, "n {k}"], Int64[Tensor, "n {k}"]]:
    """The cosines of each image's k nearest train images, the nearest first, and their classes: exact, some at a time.

    Of equally near ones the earlier counts as nearer, whatever is held at once: where a tie lies across the k-th place,
    that row is sorted whole. Equal to tests/reference/neighbours.py.
    """
    known, classes = normalize(train, dim=1), torch.from_numpy(truth)
    step = max(1, CELLS // len(known))
    found, places = [], []
    for start in range(0, len(judged), step):
        cosines = normalize(judged[start : start + step], dim=1) @ known.T  # (b, t)
        values, index = cosines.topk(k, 1)
        tied = ((cosines >= values[:, -1:]).sum(1) > k) | (values.diff(dim=1) == 0).any(1)
        if tied.any():
            whole, order = cosines[tied].sort(dim=1, descending=True, stable=True)
            values[tied], index[tied] = whole[:, :k], order[:, :k]
        found.append(values)
        places.append(index)
    return torch.cat(found), classes[torch.cat(places)]
