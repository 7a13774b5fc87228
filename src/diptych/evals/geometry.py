"""The shape of the embedding space: do pairs meet, are vectors spread out, how far apart do images and texts lie?"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Float64
from pydantic import Field
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals import vector_geometry as shape
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult, ItemTable, some
from diptych.evals.intervals import Interval
from diptych.evals.items import item_table
from diptych.evals.ranking import Matches, check_finite, pair_products
from diptych.evals.scoring import choose_places, describe_broken, read_gallery, thumbnail
from diptych.evals.statistics import bootstrap_mean, share_estimate
from diptych.evals.vector_geometry import Neighbours, RankOf, Spectrum
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Lines, Picture, Pictures, Words

SHOWN = 12
"""Pairs of collapsed images, and of collapsed texts, that a report shows."""


class GeometryConfig(EvalConfig):
    """Settings of the geometry eval."""

    full: ClassVar[Mapping[str, Any] | None] = {"max_items": 5000}
    collapsed: float = Field(0.999, gt=0, lt=1)
    """Two items whose cosine is above this are one to the model."""
    rank_of: RankOf = "singular_values"
    """What the effective rank is of."""
    centred: bool = True
    """Take the mean off before the spectrum is looked at: it is about the spread, not about where the vectors lie."""
    components: int = Field(10, ge=1)
    """The share of variance is given of the first component, and of the first so many."""
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0

    def build(self) -> "Geometry":
        """The eval."""
        return Geometry(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records have no captions."""
        without = not any(data.captions(p) for p in some(data))
        return super().unsuited(model, data) or ("its records have no captions" if without else "")


class Geometry(Eval):
    """Alignment of pairs, uniformity, modality gap, effective rank, share of variance, and duplicate collapse.

    Distinct items only: images with other bytes, first captions with other token ids. What random vectors of that
    width show stands in the settings (`random_vectors`) and in the figures. Definitions and sources:
    docs/reference/evals-bias-geometry.md.
    """

    needs: ClassVar[tuple[str, ...]] = ("embed_image", "embed_text")
    headline: ClassVar[str] = "alignment"
    best: ClassVar[float] = 0.0

    def __init__(self, config: GeometryConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`."""
        config = self.config
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        places = [p for p in choose_places(data, config.max_items) if data.captions(p)]
        if len(places) >= 2:
            gallery = read_gallery(model, reader, places, "geometry", True)
            places = gallery.places
        if len(places) < 2:
            raise EvalError(
                f"geometry must be given at least 2 readable images with captions; got {len(places)}. Choose a larger "
                "split."
            )
        captions = [data.captions(p)[0] for p in places]
        ids = [tuple(e.ids) for e in model.tokenizer.encode_all(captions)]
        matches = Matches.of(gallery.hashes, [[str(i)] for i in ids])
        assert gallery.vectors is not None
        images = gallery.vectors[matches.first_image]
        texts = model.embed_text([captions[i] for i in matches.owner[matches.first_text].tolist()])
        check_finite(images)
        check_finite(texts)
        if min(len(images), len(texts)) < 3:
            raise EvalError(
                f"geometry must be given at least 3 distinct images and captions; got {len(images)} and {len(texts)}. "
                "Choose a larger split, or one whose captions differ."
            )
        found = _Space(config, data, places, captions, matches, images, texts)
        settings = {
            "images": len(places),
            "distinct_images": len(images),
            "distinct_captions": len(texts),
            "width": images.shape[1],
            "random_vectors": found.baselines,
            "broken_images": describe_broken(reader),
        }
        return config.result(
            model,
            data,
            metrics=found.metrics,
            settings=settings,
            items=found.items() if artifacts else {},
            figures=found.figures() if artifacts else (),
        )


class _Side(NamedTuple):
    """One modality's vectors, and what was found of them."""

    vectors: Tensor
    near: Neighbours
    spectrum: Spectrum


class _Space:
    """What was found of both modalities."""

    def __init__(
        self,
        config: GeometryConfig,
        split: Any,
        places: list[int],
        captions: list[str],
        matches: Matches,
        images: Float[Tensor, "i e"],
        texts: Float[Tensor, "t e"],
    ) -> None:
        self.config, self.split, self.places, self.captions, self.matches = config, split, places, captions, matches
        self.sides = {
            name: _Side(vectors, shape.neighbours(vectors), shape.spectrum(vectors, config.centred))
            for name, vectors in (("image", images), ("text", texts))
        }
        self.images, self.texts = images, texts
        self.image_of, self.text_of = matches.image_of.numpy(), matches.text_of.numpy()
        self.apart = (images[self.image_of] - texts[self.text_of]).double().numpy()  # of each record's pair
        self.squared = (self.apart**2).sum(1)

    @cached_property
    def metrics(self) -> dict[str, Estimate]:
        """Every number; lower is better but for the effective rank."""
        metrics = {"alignment": self._alignment(), "modality_gap": self._gap()}
        for name, side in self.sides.items():
            n = len(side.vectors)
            value, ends = shape.uniformity(side.near.kernel)
            metrics[f"{name}_uniformity"] = _estimate(value, ends, n)
            value, ends = shape.effective_rank(side.spectrum, self.config.rank_of)
            metrics[f"{name}_effective_rank"] = _estimate(value, ends, n, higher_is_better=True)
            for k in sorted({1, self.config.components}):
                value, ends = shape.top_share(side.spectrum, k)
                metrics[f"{name}_variance_share_top_{k}"] = _estimate(value, ends, n)
            collapsed = share_estimate(self._collapsed(side), None, None, self.config.bootstrap, self.config.seed)
            metrics[f"{name}_collapse_share"] = collapsed.replace(higher_is_better=False)
        return metrics

    @cached_property
    def baselines(self) -> dict[str, dict[str, float]]:
        """What as many random unit vectors of the same width show."""
        found = {}
        for name, side in self.sides.items():
            n, width = side.vectors.shape
            spread = shape.spectrum(shape.random_vectors(n, width, self.config.seed), self.config.centred)
            found[name] = {
                "uniformity": shape.random_uniformity(width),
                "effective_rank": shape.effective_rank(spread, self.config.rank_of)[0],
                "variance_share_top_1": shape.top_share(spread, 1)[0],
            }
        return found

    def items(self) -> dict[str, ItemTable]:
        """Each pair's squared distance, and which images are one to the model."""
        uids = [self.split.uid(p) for p in self.places]
        first = self.matches.first_image.tolist()
        collapsed = self._collapsed(self.sides["image"])
        return {
            "pairs": item_table(uids, {"alignment": self.squared}, self.image_of),
            "images": item_table([uids[i] for i in first], {"image_collapse_share": collapsed}),
        }

    def figures(self) -> tuple[Figure, ...]:
        """Cosines, spectra, the baselines beside the numbers, and what has collapsed."""
        figures = [self._cosines(), self._spectra(), self._beside_random()]
        images, texts = self._collapsed_images(), self._collapsed_texts()
        return (*figures, *(f for f in (images, texts) if f is not None))

    def _alignment(self) -> Estimate:
        """E ||x - y||^2 of pairs (Wang and Isola, alpha = 2). Chance: of images and texts that are no pairs."""
        pairs = pair_products(self.images, self.texts, self.matches).double()
        every = float(self.images.double().sum(0) @ self.texts.double().sum(0))
        others = len(self.images) * len(self.texts) - len(pairs)
        chance = 2 - 2 * (every - float(pairs.sum())) / others if others else None
        value, (low, high) = self._mean(self.squared, 0.0, 4.0)
        n = len(self.images)
        return Estimate(value=value, low=low, high=high, chance=chance, n=n, higher_is_better=False)

    def _gap(self) -> Estimate:
        """||mean image - mean text|| over the pairs. Chance: what is left of it where in each pair image and text
        change places at random: E ||.||^2 is then the mean squared distance / n.

        The norm is the mean of the pairs' differences along the direction of the gap, so it is resampled as a mean.
        """
        mean = self.apart.mean(0)
        norm = float(np.linalg.norm(mean))
        along = self.apart @ (mean / norm) if norm > 1e-9 else np.zeros(len(self.apart))
        value, (low, high) = self._mean(along, -2.0, 2.0)
        n = len(self.images)
        chance = float(np.sqrt(self.squared.mean() / n))
        return Estimate(value=value, low=max(0.0, low), high=high, chance=chance, n=n, higher_is_better=False)

    def _mean(self, values: Float64[np.ndarray, " n"], least: float, most: float) -> tuple[float, Interval]:
        """The mean of values that lie between `least` and `most`, resampling distinct images."""
        shares = np.clip((values - least) / (most - least), 0.0, 1.0)
        ends = bootstrap_mean(shares, self.image_of, self.config.bootstrap, self.config.seed)
        value, (low, high) = float(values.mean()), (least + (most - least) * x for x in ends)
        return value, Interval(min(low, value), max(high, value))

    def _collapsed(self, side: _Side) -> np.ndarray:
        return side.near.cosine > self.config.collapsed

    def _cosines(self) -> Figure:
        mine, others = shape.cosine_counts(self.images, self.texts, self.matches.pairs)
        used = np.flatnonzero(mine + others)
        part = slice(max(0, used[0] - 1), used[-1] + 2)
        centres = -1 + (np.arange(shape.BINS) + 0.5) * (2 / shape.BINS)
        series = {
            name: tuple((counts[part] / max(1, counts.sum())).tolist())
            for name, counts in (("pairs", mine), ("others", others))
        }
        return Lines(
            title="Cosines of pairs and of others",
            words="Retrieval lives on how far the two stand apart; where they stand is the modality gap's doing.",
            x=tuple(centres[part].tolist()),
            series=series,
            x_label="cosine of image and text",
            y_label="share in each bin of 0.01",
        )

    def _spectra(self) -> Figure:
        n, width = self.images.shape
        random = shape.spectrum(shape.random_vectors(n, width, self.config.seed), self.config.centred)
        spectra = {"images": self.sides["image"].spectrum, "texts": self.sides["text"].spectrum, "random": random}
        return Lines(
            title="Variance in the first components",
            words="A curve that rises at once: few directions carry everything.",
            x=tuple(float(k) for k in range(1, width + 1)),
            series={name: tuple(np.minimum(1.0, np.cumsum(s.shares)).tolist()) for name, s in spectra.items()},
            x_label="components",
            y_label="share of variance",
        )

    def _beside_random(self) -> Figure:
        metrics, rows = self.metrics, []
        for side, numbers in self.baselines.items():
            for name, random in numbers.items():
                e = metrics[f"{side}_{name}"]
                rows.append(
                    (
                        f"{side} {name.replace('_', ' ')}",
                        f"{e.value:.4g}",
                        f"{e.low:.4g} to {e.high:.4g}",
                        f"{random:.4g}",
                    )
                )
        return Words(
            title="Beside random vectors",
            words="As many unit vectors of the same width, spread evenly: their uniformity is the least there is.",
            head=("", "found", "95 %", "random"),
            rows=tuple(rows),
            numeric=(1, 2, 3),
        )

    def _collapsed_images(self) -> Figure | None:
        near, first = self.sides["image"].near, self.matches.first_image.tolist()
        pictures = []
        for i, j in self._pairs(near):
            for place, other in ((i, j), (j, i)):
                at = first[place]
                detail = f"cosine {near.cosine[i]:.4f} to the {'next' if other == j else 'one before'}"
                image = thumbnail(self.split, self.places[at])
                pictures.append(Picture(image=image, caption=self.captions[at], detail=detail))
        if not pictures:
            return None
        words = f"Images of other bytes with a cosine above {self.config.collapsed:g}, in pairs."
        return Pictures(title="Images that are one to the model", words=words, pictures=tuple(pictures))

    def _collapsed_texts(self) -> Figure | None:
        near, owner = self.sides["text"].near, self.matches.owner[self.matches.first_text].tolist()
        rows = tuple(
            (self.captions[owner[i]], self.captions[owner[j]], f"{near.cosine[i]:.4f}") for i, j in self._pairs(near)
        )
        if not rows:
            return None
        words = f"Captions of other tokens with a cosine above {self.config.collapsed:g}."
        return Words(
            title="Texts that are one to the model", words=words, head=("", "", "cosine"), rows=rows, numeric=(2,)
        )

    def _pairs(self, near: Neighbours) -> list[tuple[int, int]]:
        """The closest collapsed items with their nearest ones, each pair once."""
        order = np.argsort(-near.cosine, kind="stable")
        order = order[near.cosine[order] > self.config.collapsed]
        pairs = [(i, int(near.nearest[i])) for i in order[: 4 * SHOWN].tolist()]
        return list({frozenset(p): p for p in reversed(pairs)}.values())[::-1][:SHOWN]


def _estimate(value: float, ends: Interval, n: int, higher_is_better: bool = False) -> Estimate:
    low, high = min(value, ends.low), max(value, ends.high)
    return Estimate(value=value, low=low, high=high, n=n, higher_is_better=higher_is_better)
