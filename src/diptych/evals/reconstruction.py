"""Reconstruction: what is left of images that go through a codec and back. Look at it before anything learns from it.

Chance is what the same reconstructions reach beside other images: a codec that returns the same for all never lies
above it. A thumbnail of as many places as the codec has is the level of a codec that knows nothing of images.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int64, UInt8
from pydantic import Field
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.core.seeds import numpy_generator
from diptych.data.image_reader import ImageBatch, ImageReader
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult, ItemTable
from diptych.evals.items import item_table
from diptych.evals.painted import encoded
from diptych.evals.scoring import choose_places, describe_broken, distinct
from diptych.evals.ssim import MOST_DB, psnr, ssim
from diptych.evals.statistics import mean_estimate, paired_difference
from diptych.evals.written import dealt_out
from diptych.models.capabilities import require
from diptych.models.codecs.codec import ImageTokenizer
from diptych.models.pretrained import Pretrained
from diptych.nn.quantizer import perplexity
from diptych.report.figures import Figure, Picture, Pictures


class ReconstructionConfig(EvalConfig):
    """Settings of the reconstruction eval."""

    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(24, ge=0)
    """How many images beside what came back of them go into the report: some, and the worst."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 1000}

    def build(self) -> "Reconstruction":
        """The eval."""
        return Reconstruction(self)


class Reconstruction(Eval):
    """SSIM, PSNR (dB) and mean absolute error (shares of the range) of what a codec returns, with intervals over
    images (equal ones are one cluster); how much better than a thumbnail of its grid; and of a codec with a codebook
    how much of it is used. Definitions: docs/reference/evals-painting.md."""

    needs: ClassVar[tuple[str, ...]] = ("reconstruct",)
    headline: ClassVar[str] = "ssim"

    def __init__(self, config: ReconstructionConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`."""
        config = self.config
        require(model.model, self.needs, "reconstruction")
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        seen = Seen(model)
        for batch in reader.batches(choose_places(data, config.max_items)):
            seen.add(batch)
        clusters = distinct(seen.hashes)
        if len(np.unique(clusters)) < 2:
            raise EvalError(
                f"reconstruction must be given at least 2 different readable images; got {len(np.unique(clusters))} of "
                f"{len(data)}, {len(reader.broken)} being broken. Name another split, or raise max_items."
            )
        values = seen.values()
        metrics = self._metrics(values, clusters, seen.chance(clusters, config.seed), seen.thumbnails())
        items: dict[str, ItemTable] = {}
        figures: tuple[Figure, ...] = ()
        if artifacts:
            items = {"images": item_table(map(data.uid, seen.places), values, clusters)}
            figures = self._figures(seen, values["ssim"])
        settings = {"images": len(seen.places), "broken_images": describe_broken(reader), **seen.codebook()}
        return config.result(model, data, metrics=metrics, settings=settings, items=items, figures=figures)

    def _metrics(
        self,
        values: dict[str, np.ndarray],
        clusters: Int64[np.ndarray, " n"],
        chance: dict[str, float],
        thumbnails: dict[str, np.ndarray],
    ) -> dict[str, Estimate]:
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        metrics = {n: mean_estimate(values[n], clusters, chance[n], **how) for n in ("ssim", "l1")}
        metrics["psnr"] = _in_db(mean_estimate(values["psnr"] / MOST_DB, clusters, chance["psnr"] / MOST_DB, **how))
        metrics["l1"] = metrics["l1"].replace(higher_is_better=False)
        for name, theirs in thumbnails.items():
            test = paired_difference(values[name], theirs, clusters, seed=self.config.seed)
            metrics[f"{name}_over_thumbnail"] = Estimate(
                value=test.difference, low=test.low, high=test.high, chance=0.0, n=test.n
            )
        return metrics

    def _figures(self, seen: "Seen", similarity: np.ndarray) -> tuple[Figure, ...]:
        most, order = self.config.pictures, np.argsort(similarity, kind="stable")
        shuffled = numpy_generator("reconstruction", self.config.seed).permutation(len(similarity))
        words = "Left as it was, right as it came back; with SSIM."
        return tuple(
            Pictures(title=title, words=words, pictures=tuple(seen.picture(int(i), similarity[i]) for i in rows[:most]))
            for title, rows in (("There and back", shuffled), ("Worst", order))
        )


class Seen:
    """Images and what came back of them."""

    def __init__(self, model: Pretrained) -> None:
        self.model: Any = model.model
        self.device = model.model.pixel_mean.device
        self.places: list[int] = []
        self.hashes: list[bytes] = []
        self._wanted: list[Tensor] = []
        self._found: list[Tensor] = []
        self._pairs: list[tuple[Tensor, Tensor]] = []  # views of both, image by image
        self._codes: Tensor | None = None

    def add(self, batch: ImageBatch) -> None:
        """Send a batch through the codec."""
        images: UInt8[Tensor, "b 3 s s"] = batch.images
        found = self.model.reconstruct(images.to(self.device)).cpu()
        if found.shape != images.shape:
            raise EvalError(
                f"reconstruct must return images of the side that it is given; got {tuple(found.shape[1:])} for "
                f"{tuple(images.shape[1:])}. Set the codec's image_format to the side that it paints at."
            )
        self.places += batch.places
        self.hashes += batch.hashes
        self._wanted.append(images)
        self._found.append(found)
        self._pairs += zip(images, found, strict=True)
        if isinstance(self.model, ImageTokenizer):
            codes = self.model.codes(images.to(self.device)).flatten()
            counts = torch.bincount(codes, minlength=self.model.codebook_size)
            self._codes = counts if self._codes is None else self._codes + counts

    def values(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """Of each image."""
        return _compared(self._found, self._wanted)

    def chance(self, clusters: Int64[np.ndarray, " n"], seed: int) -> dict[str, float]:
        """The means when what came back is dealt out to other images."""
        dealt = torch.from_numpy(dealt_out(clusters, 1, seed)[0])
        sizes = [len(part) for part in self._wanted]
        values = _compared(list(torch.cat(self._found)[dealt].split(sizes)), self._wanted)
        return {n: float(v.mean()) for n, v in values.items()}

    def thumbnails(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """SSIM and PSNR of the mean colours of the codec's grid, spread out again (bicubic); {} without a grid."""
        grid = getattr(self.model, "grid", None)
        if grid is None:
            return {}
        found = []
        for part in self._wanted:
            small = F.interpolate(part.float(), tuple(grid), mode="area")
            large = F.interpolate(small, part.shape[2:], mode="bicubic", align_corners=False)
            found.append(large.round().clamp(0, 255).to(torch.uint8))
        values = _compared(found, self._wanted)
        return {n: values[n] for n in ("ssim", "psnr")}

    def codebook(self) -> dict[str, Any]:
        """How much of the codebook these images use, and how many bits stand for an image."""
        if self._codes is None:
            return {}
        used, size = int((self._codes > 0).sum()), len(self._codes)
        places = int(self._codes.sum()) // len(self.places)
        return {
            "codebook_size": size,
            "codebook_use": round(used / size, 4),
            "perplexity": round(float(perplexity(self._codes.double())), 1),
            "bits_an_image": round(places * float(np.log2(size))),
        }

    def picture(self, i: int, similarity: float) -> Picture:
        """An image beside what came back of it."""
        wanted, found = self._pairs[i]
        gap = torch.full((3, wanted.shape[1], 1), 255, dtype=torch.uint8)
        return Picture(image=encoded(torch.cat([wanted, gap, found], 2)), caption=f"{similarity:.3f}")


def _in_db(e: Estimate) -> Estimate:
    """An estimate of a value that was divided by MOST_DB, as its interval wants it."""
    assert e.chance is not None
    return e.replace(value=e.value * MOST_DB, low=e.low * MOST_DB, high=e.high * MOST_DB, chance=e.chance * MOST_DB)


def _compared(found: list[Tensor], wanted: list[Tensor]) -> dict[str, Float64[np.ndarray, " n"]]:
    """Of each pair of images."""
    pairs = list(zip(found, wanted, strict=True))
    measured = {
        "ssim": [ssim(a, b) for a, b in pairs],
        "psnr": [psnr(a, b) for a, b in pairs],
        "l1": [(a.double() - b.double()).abs().mean((1, 2, 3)) / 255 for a, b in pairs],
    }
    return {n: torch.cat(v).numpy().astype(np.float64) for n, v in measured.items()}
