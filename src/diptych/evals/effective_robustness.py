"""Effective robustness: is a model better on shifted data than its accuracy on the usual data makes one expect?"""

from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from pydantic import Field

from diptych.core.errors import EvalError
from diptych.core.seeds import numpy_generator
from diptych.data.image_reader import ImageReader
from diptych.evals.baseline_models import MANY, Baselines, expected, read_baselines
from diptych.evals.choices import ChoiceConfig, Chooser, read_choices
from diptych.evals.eval import Estimate, Eval, EvalResult
from diptych.evals.items import item_table
from diptych.evals.open_data import open_data
from diptych.evals.scoring import choose_scoring, distinct, places_to_score, read_gallery
from diptych.evals.statistics import bootstrap_weights, share_estimate
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Words


class EffectiveRobustnessConfig(ChoiceConfig):
    """Settings of the effective robustness eval. It is in no suite: it needs files that only you have."""

    full: ClassVar[dict[str, Any] | None] = None
    max_items: int = Field(0, ge=0)
    baselines: str = ""
    """A CSV of other models: columns model, one for each reference, and `shifted`, in shares."""
    references: tuple[str, ...] = ()
    """The usual data: "COLUMN=DATA" or "COLUMN=DATA:SPLIT" each. With models trained on the web, give several: by one
    alone effective robustness is overrated (Shi et al., 2023)."""
    choices: Literal["labels"] = "labels"
    shifted: str = "shifted"
    """The column of the data that the eval is run on."""

    def build(self) -> "EffectiveRobustness":
        """The eval."""
        return EffectiveRobustness(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where no baselines are given."""
        if not self.baselines or not self.references:
            return "it needs baselines=FILE and references"
        return super().unsuited(model, data)

    def named(self) -> list[tuple[str, str, str]]:
        """(column, data, split) of each reference. Raises EvalError where one is not of that form."""
        found = []
        for reference in self.references:
            column, equals, data = reference.partition("=")
            folder, colon, split = data.rpartition(":")
            if not equals or not column.strip() or not data.strip():
                raise EvalError(
                    f"references must be COLUMN=DATA or COLUMN=DATA:SPLIT; got {reference!r}. For example "
                    "references=imagenet=/data/imagenet:val."
                )
            found.append((column.strip(), folder if colon else data, split if colon else ""))
        return found


class _Hits(NamedTuple):
    """Which images of a set the model had right."""

    hits: Bool[np.ndarray, " n"]
    clusters: Int64[np.ndarray, " n"]
    uids: list[str]
    chance: float
    split: str


class EffectiveRobustness(Eval):
    """rho = acc_shifted - sigma(beta(logit acc_usual)), beta a line through baseline models in logit space (Taori et
    al., 2020, arXiv:2007.00644; Miller et al., 2021), once for each reference, and for all of them together.

    Accuracies are zero-shot, on the records' labels. The interval resamples the images of all sets and the baseline
    models. The headline is the smallest rho of any reference: what remains, whichever is taken for the usual. Chance 0
    is a model on the line.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "rho"

    def __init__(self, config: EffectiveRobustnessConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the shifted split `data`."""
        config = self.config
        references = config.named()
        if not config.baselines or not references:
            raise EvalError(
                "effective_robustness must be given baselines and references; got "
                f"baselines={config.baselines!r}, references={config.references}. See "
                "docs/reference/evals-grounding-robustness.md."
            )
        cloud = read_baselines(config.baselines, [c for c, _, _ in references], config.shifted)
        shifted = self._hits(model, data, config)
        usual = {}
        for column, folder, split in references:
            opened = open_data(folder)
            usual[column] = self._hits(model, opened.split(opened.held_out(split)), config.replace(data=folder))
        found = self._rhos(cloud, shifted, usual)
        accuracies = self._accuracies(shifted, usual)
        tables = {"shifted": _table(shifted, "acc_shifted")}
        tables |= {f"reference_{c}": _table(h, f"acc_{c}") for c, h in usual.items()}
        return config.result(
            model,
            data,
            metrics={**found, **accuracies},
            settings={
                "baseline_models": len(cloud.models),
                "images": len(shifted.hits),
                "reference_splits": {c: h.split for c, h in usual.items()},
            },
            items=tables if artifacts else {},
            figures=self._figures(cloud, found, accuracies) if artifacts else (),
        )

    def _hits(self, model: Pretrained, split: Any, c: EffectiveRobustnessConfig) -> _Hits:
        """Which images of a split the model has right; `c.data` is where its classes may be named."""
        scoring = choose_scoring(model, c, "effective_robustness")
        embeds = scoring.by == "embeddings"
        reader = ImageReader(split, model.model.config.image_format, c.batch_size)
        places = places_to_score(split, c, scoring)
        gallery = read_gallery(model, reader, places, "effective_robustness", embeds)
        choices = read_choices(c, "labels", split, gallery, embeds)
        hits = choices.hits(Chooser(model, choices, scoring).choose(reader, gallery.places, gallery.vectors))
        uids = [split.uid(p) for p in gallery.places]
        return _Hits(hits, distinct(gallery.hashes), uids, choices.chance, str(split.name))

    def _rhos(self, cloud: Baselines, shifted: _Hits, usual: dict[str, _Hits]) -> dict[str, Estimate]:
        """rho by each reference, by all of them together, and the smallest of the first."""
        n = float(min(len(h.hits) for h in usual.values()))
        at_once = np.array([[h.hits.mean() for h in usual.values()]])
        drawn = np.stack([self._draws(h, f"reference {c}") for c, h in usual.items()], 1)  # (b, s)
        drawn_shifted = self._draws(shifted, "shifted")
        blocks = bootstrap_weights(len(cloud.models), self.config.bootstrap, self.config.seed, "models")
        weights = np.concatenate(list(blocks))  # (b, m)
        every: dict[str, list[int]] = {f"rho_{c}": [i] for i, c in enumerate(usual)}
        if len(usual) > 1:
            every["rho_all_references"] = list(range(len(usual)))
        values, draws = {}, {}
        for name, columns in every.items():
            x = cloud.usual[:, columns]
            values[name] = float(shifted.hits.mean() - expected(x, cloud.shifted, at_once[:, columns], n)[0])
            draws[name] = drawn_shifted - expected(x, cloud.shifted, drawn[:, columns], n, weights)
        single = [f"rho_{c}" for c in usual]
        values = {"rho": min(values[s] for s in single), **values}
        draws["rho"] = np.min([draws[s] for s in single], axis=0)
        independent = int(np.unique(shifted.clusters).size)
        found = {}
        for name, value in values.items():
            low, high = (float(q) for q in np.quantile(draws[name], (0.025, 0.975)))
            found[name] = Estimate(value=value, low=min(low, value), high=max(high, value), chance=0.0, n=independent)
        return found

    def _draws(self, hits: _Hits, name: str) -> Float64[np.ndarray, " b"]:
        """Resampled accuracies. Where all images agree, resampling shows no spread: half an item is put on either
        side (Jeffreys' prior), and the accuracy is drawn from the posterior."""
        c = self.config
        label = np.unique(hits.clusters, return_inverse=True)[1]
        sums, sizes = np.bincount(label, weights=hits.hits.astype(float)), np.bincount(label).astype(float)
        if np.ptp(sums / sizes) == 0:
            right = len(sums) * float(sums[0] / sizes[0])
            generator = numpy_generator(c.seed, "posterior", name)
            return np.asarray(generator.beta(right + 0.5, len(sums) - right + 0.5, c.bootstrap))
        blocks = bootstrap_weights(len(sums), c.bootstrap, c.seed, name)
        return np.concatenate([(w @ sums) / (w @ sizes) for w in blocks])

    def _accuracies(self, shifted: _Hits, usual: dict[str, _Hits]) -> dict[str, Estimate]:
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        found = {"acc_shifted": share_estimate(shifted.hits, shifted.clusters, shifted.chance, **how)}
        return found | {f"acc_{c}": share_estimate(h.hits, h.clusters, h.chance, **how) for c, h in usual.items()}

    def _figures(
        self, cloud: Baselines, found: dict[str, Estimate], accuracies: dict[str, Estimate]
    ) -> tuple[Figure, ...]:
        rows = tuple(
            Interval(name=n.replace("_", " "), value=e.value, low=e.low, high=e.high, chance=0.0, n=e.n)
            for n, e in found.items()
        )
        whole = Intervals(
            title="Above the line of the baselines",
            words="Accuracy on the shifted data, less what the baselines' line expects of a model with these usual "
            "accuracies; rho is the smallest by any reference. 0 is a model on the line.",
            rows=rows,
        )
        mine = ("this model", *(f"{accuracies[f'acc_{c}'].value:.1%}" for c in cloud.sets))
        table = [(*mine, f"{accuracies['acc_shifted'].value:.1%}", "")]
        first = cloud.usual[:, :1]
        above = cloud.shifted - expected(first, cloud.shifted, first, MANY)
        order = np.argsort(-cloud.shifted, kind="stable").tolist()
        table += [
            (cloud.models[i], *(f"{v:.1%}" for v in (*cloud.usual[i], cloud.shifted[i])), f"{above[i]:+.1%}")
            for i in order
        ]
        words = Words(
            title="The baselines",
            words="Their accuracies as they were given, and how far each lies above the line of the first reference.",
            head=("model", *cloud.sets, self.config.shifted, "above the line"),
            rows=tuple(table),
            numeric=tuple(range(1, len(cloud.sets) + 3)),
        )
        return whole, words


def _table(hits: _Hits, metric: str) -> Any:
    return item_table(hits.uids, {metric: hits.hits}, hits.clusters)
