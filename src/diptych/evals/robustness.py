"""Robustness: how much of a model's accuracy is left when its images are noisy, blurred, too bright or badly stored."""

import base64
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from pydantic import Field, field_validator
from torch import Tensor

from diptych.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from diptych.data.decode import encode_png
from diptych.evals.choices import ChangedReader, ChoiceConfig, Chooser, HeldReader, choosable, kind_of, read_choices
from diptych.evals.corruption_errors import Errors, ratio_estimate, read_errors, signed_estimate
from diptych.evals.eval import Estimate, Eval, EvalResult, ItemTable
from diptych.evals.items import item_table
from diptych.evals.scoring import Gallery, choose_scoring, describe_broken, distinct, places_to_score, read_gallery
from diptych.evals.statistics import holm, mean_estimate, paired_difference, share_estimate
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Lines, Picture, Pictures, Words

SHOWN = (1, 3, 5)
"""Severities that the sheet of examples shows."""


class RobustnessConfig(ChoiceConfig):
    """Settings of the robustness eval."""

    full: ClassVar[dict[str, Any] | None] = {"max_items": 200}
    corruptions: tuple[str, ...] = Field(tuple(CORRUPTIONS), min_length=1)
    severities: tuple[int, ...] = Field(SEVERITIES, min_length=1)
    reference: str = ""
    """Errors of a model that mCE is relative to: a result of this eval (.json), or a CSV with the columns corruption,
    severity and error, whose row "clean", 0 is needed for the relative mCE only. Empty: no mCE."""

    @field_validator("corruptions")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if not set(kinds) <= set(CORRUPTIONS) or len(set(kinds)) < len(kinds):
            raise ValueError(
                f"RobustnessConfig.corruptions must be some of {', '.join(CORRUPTIONS)}, each once; got {kinds}."
            )
        return kinds

    @field_validator("severities")
    @classmethod
    def _in_range(cls, severities: tuple[int, ...]) -> tuple[int, ...]:
        if not set(severities) <= set(SEVERITIES) or len(set(severities)) < len(severities):
            raise ValueError(f"RobustnessConfig.severities must be some of 1 to 5, each once; got {severities}.")
        return severities

    def build(self) -> "Robustness":
        """The eval."""
        return Robustness(self)


class Robustness(Eval):
    """Accuracy (the class, else the caption: `choices`) on corrupted images, against the same images as they are.

    Images are corrupted at the model's own input pixels, after its resize: a model that looks at 224 pixels and one
    that looks at 32 are given unlike tasks, and only models of one resolution and resize see the very same pixels.
    Noise is seeded by the bytes of the image file. See `data/corruptions.py` for kinds and constants.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "corrupted"

    def __init__(self, config: RobustnessConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`."""
        config = self.config
        reference = read_errors(config.reference, config.corruptions, config.severities) if config.reference else None
        scoring = choose_scoring(model, config, "robustness")
        embeds = scoring.by == "embeddings"
        places = places_to_score(data, config, scoring)
        kind = kind_of(config, data, places)
        reader = HeldReader(data, model.model.config.image_format, config.batch_size)
        gallery = read_gallery(model, reader, choosable(kind, data, places), "robustness", embeds)
        choices = read_choices(config, kind, data, gallery, embeds)
        chooser = Chooser(model, choices, scoring)
        clean = choices.hits(chooser.choose(reader, gallery.places, gallery.vectors))
        corrupted = np.array(
            [
                [choices.hits(self._chosen(model, chooser, reader, gallery, k, s)) for s in config.severities]
                for k in config.corruptions
            ]
        )  # (k, s, n)
        found = _Found(config, clean, corrupted, distinct(gallery.hashes), choices.chance, reference)
        return config.result(
            model,
            data,
            metrics=found.metrics(),
            settings={
                **choices.settings(),
                "images": len(gallery.places),
                "resolution": model.model.config.image_format.resolution,
                "corrupted_at": "the model's input pixels, after its resize",
                "broken_images": describe_broken(reader),
                "scored_by": scoring.by,
            },
            items={"images": found.items([data.uid(p) for p in gallery.places])} if artifacts else {},
            figures=(*found.figures(), self._examples(reader, gallery, corrupted)) if artifacts else (),
            artifacts={"errors": found.errors().rows()} if artifacts else {},
        )

    def _chosen(
        self, model: Pretrained, chooser: Chooser, reader: HeldReader, gallery: Gallery, kind: str, severity: int
    ) -> Int64[np.ndarray, " n"]:
        """The text that the model gives each image under one corruption."""
        seeds = {p: h.hex() for p, h in zip(gallery.places, gallery.hashes, strict=True)}
        seed = self.config.seed

        def change(images: Tensor, places: Sequence[int]) -> Tensor:
            return torch.stack(
                [corrupt(i, kind, severity, seed, seeds[p]) for i, p in zip(images, places, strict=True)]
            )

        if gallery.vectors is None:
            return chooser.choose(ChangedReader(reader, change), gallery.places, None)
        name = f"corruption {kind} {severity} seed {seed}"
        vectors = read_gallery(model, reader, gallery.places, "robustness", True, (name, change)).vectors
        return chooser.choose(reader, gallery.places, vectors)

    def _examples(self, reader: HeldReader, gallery: Gallery, corrupted: Bool[np.ndarray, "k s n"]) -> Figure:
        """The first image under each corruption, framed by what the model made of it."""
        batch = next(iter(reader.batches(gallery.places[:1])))
        pictures = []
        for k, kind in enumerate(self.config.corruptions):
            for s, severity in enumerate(self.config.severities):
                if severity in SHOWN or len(self.config.severities) == 1:
                    image = corrupt(batch.images[0], kind, severity, self.config.seed, batch.hashes[0].hex())
                    right = bool(corrupted[k, s, 0])
                    said = base64.b64encode(encode_png(image)).decode()
                    name = f"{kind.replace('_', ' ')} {severity}"
                    pictures.append(Picture(image=said, caption=name, verdict="right" if right else "wrong"))
        return Pictures(
            title="What the model is shown",
            words="The first image at the model's own resolution; the frame says whether its text was still found.",
            pictures=tuple(pictures),
            shown=len(pictures),
        )


class _Found:
    """Hits on clean and on corrupted images, and what follows from them."""

    def __init__(
        self,
        config: RobustnessConfig,
        clean: Bool[np.ndarray, " n"],
        corrupted: Bool[np.ndarray, "k s n"],
        clusters: Int64[np.ndarray, " n"],
        chance: float,
        reference: Errors | None,
    ) -> None:
        self.config, self.clean, self.corrupted = config, clean, corrupted
        self.clusters, self.chance, self.reference = clusters, chance, reference

    def values(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """Each image's share of every metric that is a mean over images."""
        found = {"clean": self.clean.astype(float), "corrupted": self.corrupted.mean((0, 1))}
        found |= {kind: self.corrupted[k].mean(0) for k, kind in enumerate(self.config.corruptions)}
        found |= {f"severity_{s}": self.corrupted[:, i].mean(0) for i, s in enumerate(self.config.severities)}
        found["drop"] = found["clean"] - found["corrupted"]
        if self.reference is not None:
            wrong = 1 - self.corrupted.astype(float)
            found["mce"] = (wrong.sum(1) / self.reference.errors.sum(1)[:, None]).mean(0)
            if (base := self.reference.degradation()) is not None:
                fell = (self.clean - self.corrupted.astype(float)).sum(1)
                found["relative_mce"] = (fell / base[:, None]).mean(0)
        return found

    def metrics(self) -> dict[str, Estimate]:
        """Every number with its interval."""
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        found = {}
        for name, values in self.values().items():
            if name == "clean":
                found[name] = share_estimate(self.clean, self.clusters, self.chance, **how)
            elif name in ("drop", "mce", "relative_mce"):
                found[name] = signed_estimate(values, self.clusters, **how)
            else:
                found[name] = mean_estimate(values, self.clusters, self.chance, **how)
        if self.clean.any():
            left = self.corrupted.mean((0, 1))
            found["relative_drop"] = ratio_estimate(self.clean - left, self.clean, self.clusters, **how)
        return found

    def items(self, uids: Sequence[str]) -> ItemTable:
        """What each image brought."""
        return item_table(uids, self.values(), self.clusters)

    def errors(self) -> Errors:
        """The error of every corruption at every severity: what another model's mCE may be relative to."""
        c = self.config
        return Errors(c.corruptions, c.severities, 1 - self.corrupted.mean(2), 1 - float(self.clean.mean()))

    def figures(self) -> tuple[Figure, ...]:
        """Curves, what is left of each corruption, and every drop with its paired test."""
        c = self.config
        means, clean = self.corrupted.mean(2), float(self.clean.mean())
        order = sorted(range(len(c.severities)), key=lambda s: c.severities[s])
        curves = Lines(
            title="Accuracy by severity",
            words="0 is the image as it is. The dashed line is what guessing reaches.",
            x=(0.0, *(float(c.severities[s]) for s in order)),
            series={k: (clean, *(float(means[i, s]) for s in order)) for i, k in enumerate(c.corruptions)},
            x_label="severity",
            y_label="accuracy",
            references={"chance": self.chance},
        )
        metrics = self.metrics()
        rows = [
            ("clean", metrics["clean"]),
            *sorted(((k, metrics[k]) for k in c.corruptions), key=lambda r: r[1].value),
        ]
        left = Intervals(
            title="What is left of each",
            words="The mean over severities, the worst first, against the images as they are.",
            rows=tuple(
                Interval(name=n.replace("_", " "), value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n)
                for n, e in rows
            ),
        )
        return curves, left, self._drops()

    def _drops(self) -> Words:
        c = self.config
        tests = {
            (k, s): paired_difference(self.clean, self.corrupted[i, j], self.clusters, seed=c.seed)
            for i, k in enumerate(c.corruptions)
            for j, s in enumerate(c.severities)
        }
        adjusted = holm({f"{k} {s}": t.p_value for (k, s), t in tests.items()})
        rows = sorted(tests.items(), key=lambda item: -item[1].difference)
        return Words(
            title="Every drop",
            words="Accuracy on the images as they are, less that on the same images corrupted, with its 95 % interval; "
            "p-values are of the paired test, adjusted for their number (Holm).",
            head=("corruption", "severity", "accuracy", "drop", "interval", "p"),
            rows=tuple(
                (
                    kind.replace("_", " "),
                    str(severity),
                    f"{self.clean.mean() - t.difference:.1%}",
                    f"{t.difference:.1%}",
                    f"{t.low:.1%} to {t.high:.1%}",
                    f"{adjusted[f'{kind} {severity}']:.2g}",
                )
                for (kind, severity), t in rows
            ),
            numeric=(1, 2, 3, 4, 5),
        )
