"""Adversarial robustness: what is left of a model's accuracy when its pixels are changed against it."""

import base64
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field, field_validator
from torch import Tensor

from diptych.core.seeds import torch_generator
from diptych.data.decode import encode_png
from diptych.data.image_reader import ImageBatch, ImageReader
from diptych.evals.attacks import LEVELS, Attack, Loss, pgd
from diptych.evals.choices import ChoiceConfig, Choices, Chooser, choosable, kind_of, read_choices
from diptych.evals.eval import Estimate, Eval, EvalResult, ItemTable
from diptych.evals.items import item_table
from diptych.evals.scoring import Gallery, Scoring, choose_places, describe_broken, distinct, read_gallery
from diptych.evals.statistics import mean_estimate, paired_difference, share_estimate
from diptych.models.capabilities import capabilities_of, require
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Lines, Picture, Pictures, Words

SHOWN = 0.5
"""The grey that stands for no change in the pictures of changes."""


class AdversarialConfig(ChoiceConfig):
    """Settings of the adversarial eval."""

    full: ClassVar[dict[str, Any] | None] = {"max_items": 100}
    max_items: int = Field(200, ge=0)
    scored_by: Literal["embeddings"] = "embeddings"
    eps: tuple[float, ...] = Field((1.0, 2.0, 4.0), min_length=1)
    """The largest change of any pixel's value, in 1/255."""
    steps: int = Field(10, ge=1)
    step: float = Field(0.25, gt=0)
    """A step's length as a share of eps; 2.5 / steps, as Madry et al. take it, is 0.25 for ten."""
    loss: Loss = "cross_entropy"
    """What is raised: the cross entropy at the model's own temperature, or the margin of the logits."""
    judge: Literal["any", "last"] = "any"
    """An image counts as held if it is given a right text at every point that the attack looks at, the image itself
    included; or (as most published tables have it) at the last one."""
    batch_size: int = Field(32, ge=1)
    pictures: int = Field(8, ge=0)
    """How many images that were turned go into the report."""

    @field_validator("eps")
    @classmethod
    def _in_range(cls, eps: tuple[float, ...]) -> tuple[float, ...]:
        if min(eps) < 0 or max(eps) > LEVELS or len(set(eps)) < len(eps):
            raise ValueError(f"AdversarialConfig.eps must be different numbers of 0 to 255 (in 1/255); got {eps}.")
        return eps

    def build(self) -> "Adversarial":
        """The eval."""
        return Adversarial(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where the model has no gradients of its own pixels."""
        has = capabilities_of(model.model)
        if "embed_text" not in has or not hasattr(model.model, "encode_image"):
            return "the model has no embeddings with gradients"
        return super().unsuited(model, data)


class _Fooled(NamedTuple):
    """An image that an attack turned: its place among all, the attack's eps, both images."""

    image: int
    eps: float
    before: Tensor
    after: Tensor


class Adversarial(Eval):
    """Accuracy (the class, else the caption: `choices`) under projected gradient descent in the l-infinity ball.

    Pixels are changed in 0..1 before the model's own normalisation, at its input resolution, from a random start that
    is seeded by the bytes of the image. No robustness claim rests on PGD alone: an attack can fail because gradients
    are useless (try loss=margin, more steps); a low number is a fact, a high one a question.
    """

    needs: ClassVar[tuple[str, ...]] = ("embed_image", "embed_text")
    headline: ClassVar[str] = "robust"

    def __init__(self, config: AdversarialConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`."""
        config = self.config
        require(model.model, ("embed_image", "embed_text"), "adversarial")
        places = choose_places(data, config.max_items)
        kind = kind_of(config, data, places)
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        gallery = read_gallery(model, reader, choosable(kind, data, places), "adversarial", True)
        choices = read_choices(config, kind, data, gallery, True)
        chooser = Chooser(model, choices, Scoring("embeddings"))
        clean = choices.hits(chooser.choose(reader, gallery.places, gallery.vectors))
        robust, fooled = self._attacked(model, chooser, choices, reader, gallery)
        values = {"clean": clean.astype(float), "robust": robust.mean(0)}
        values |= {f"robust_at_{e:g}": robust[i].astype(float) for i, e in enumerate(config.eps)}
        clusters = distinct(gallery.hashes)
        return config.result(
            model,
            data,
            metrics=self._metrics(values, clusters, choices.chance),
            settings={
                **choices.settings(),
                "images": len(gallery.places),
                "resolution": model.model.config.image_format.resolution,
                "attack": "PGD, l-infinity, random start, one restart; pixels in 0..1 before normalisation",
                "broken_images": describe_broken(reader),
            },
            items={"images": _table(data, gallery, values, clusters)} if artifacts else {},
            figures=self._figures(values, clusters, choices, fooled) if artifacts else (),
        )

    def _attacked(
        self, model: Pretrained, chooser: Chooser, choices: Choices, reader: ImageReader, gallery: Gallery
    ) -> tuple[Bool[np.ndarray, "k n"], list[_Fooled]]:
        """Whether each image held out against each eps, and some that did not."""
        c, logits = self.config, logits_of(model, chooser)
        held = np.zeros((len(c.eps), len(gallery.places)), bool)
        fooled: list[_Fooled] = []
        row = 0
        for batch in reader.batches(gallery.places):
            images = batch.images.to(model.device, torch.float32)
            rows = range(row, row + len(batch.places))
            right = choices.mask(rows).to(model.device)
            for i, eps in enumerate(c.eps):
                with torch.enable_grad():
                    start = self._start(batch, eps).to(model.device)
                    found = pgd(logits, images, right, Attack(eps, c.steps, c.step, c.loss), start)
                kept = (found.right if c.judge == "any" else found.right_last).cpu()
                held[i, row : rows.stop] = kept.numpy()
                if len(fooled) < c.pictures:
                    fooled += self._turned(logits, batch, found.images, right, rows, eps)
            row = rows.stop
        return held, fooled[: c.pictures]

    def _start(self, batch: ImageBatch, eps: float) -> Float[Tensor, "b 3 s s"]:
        return torch.stack(
            [
                2 * torch.rand(i.shape, generator=torch_generator(self.config.seed, "pgd", h.hex(), f"{eps:g}")) - 1
                for i, h in zip(batch.images, batch.hashes, strict=True)
            ]
        )

    @torch.no_grad()
    def _turned(
        self,
        logits: Callable[[Tensor], Tensor],
        batch: ImageBatch,
        after: Tensor,
        right: Tensor,
        rows: range,
        eps: float,
    ) -> list[_Fooled]:
        """Images that the model had right and that the point of the highest loss has not."""
        before = right.gather(1, logits(batch.images.to(after)).argmax(1, keepdim=True))[:, 0]
        now = right.gather(1, logits(after).argmax(1, keepdim=True))[:, 0]
        return [
            _Fooled(rows[i], eps, batch.images[i], after[i].cpu()) for i in (before & ~now).nonzero()[:, 0].tolist()
        ]

    def _metrics(
        self, values: dict[str, np.ndarray], clusters: Int64[np.ndarray, " n"], chance: float
    ) -> dict[str, Estimate]:
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        found = {
            name: (mean_estimate if name == "robust" else share_estimate)(v, clusters, chance, **how)
            for name, v in values.items()
        }
        drop = paired_difference(values["clean"], values["robust"], clusters, self.config.bootstrap, self.config.seed)
        low, high = min(drop.low, drop.difference), max(drop.high, drop.difference)
        found["drop"] = Estimate(value=drop.difference, low=low, high=high, n=drop.n, higher_is_better=False)
        return found

    def _figures(
        self, values: dict[str, np.ndarray], clusters: Int64[np.ndarray, " n"], choices: Choices, fooled: list[_Fooled]
    ) -> tuple[Figure, ...]:
        c = self.config
        order = sorted(c.eps)
        accuracy = (float(values["clean"].mean()), *(float(values[f"robust_at_{e:g}"].mean()) for e in order))
        curve = Lines(
            title="Accuracy under attack",
            words="Against the largest change of any pixel, in 1/255; 0 is the image as it is.",
            x=(0.0, *order),
            series={"accuracy": accuracy},
            x_label="eps (1/255)",
            y_label="accuracy",
            references={"chance": choices.chance},
        )
        rows = []
        for e in order:
            t = paired_difference(values["clean"], values[f"robust_at_{e:g}"], clusters, seed=c.seed)
            left = values[f"robust_at_{e:g}"].mean()
            rows.append((f"{e:g}/255", f"{left:.1%}", f"{t.difference:.1%}", f"{t.low:.1%} to {t.high:.1%}"))
        drops = Words(
            title="Every drop",
            words="Accuracy on the images as they are, less that under attack, with its 95 % interval (paired).",
            head=("eps", "accuracy", "drop", "interval"),
            rows=tuple(rows),
            numeric=(1, 2, 3),
        )
        return (curve, drops, _sheet(fooled)) if fooled else (curve, drops)


def logits_of(model: Pretrained, chooser: Chooser) -> Callable[[Tensor], Tensor]:
    """From pixels (0..255, with gradients) to the logits of all texts, at the model's own temperature."""
    network: Any = model.model
    assert chooser.vectors is not None
    texts = chooser.vectors.to(model.device)
    log_scale = getattr(network, "log_logit_scale", None)
    scale = math.exp(float(torch.as_tensor(log_scale).detach())) if log_scale is not None else 100.0

    def logits(images: Tensor) -> Tensor:
        return scale * network.encode_image(images).float() @ texts.T

    return logits


def _table(data: Any, gallery: Gallery, values: dict[str, np.ndarray], clusters: Int64[np.ndarray, " n"]) -> ItemTable:
    every = {**values, "drop": values["clean"] - values["robust"]}
    return item_table([data.uid(p) for p in gallery.places], every, clusters)


def _sheet(fooled: list[_Fooled]) -> Pictures:
    """Images before and after, and the change, stretched so that eps is black or white."""
    shown = []
    for f in fooled:
        change = (f.after - f.before.float()) / max(f.eps, 1e-9)
        seen = torch.cat([f.before.float(), f.after, 255 * (SHOWN + SHOWN * change)], 2)
        data = base64.b64encode(encode_png(seen.round().clamp(0, 255).to(torch.uint8))).decode()
        shown.append(Picture(image=data, caption=f"eps {f.eps:g}/255", verdict="wrong"))
    return Pictures(
        title="Images that were turned",
        words="As it is, as the model was shown it (rounded here), and the change, stretched to black and white.",
        pictures=tuple(shown),
    )
