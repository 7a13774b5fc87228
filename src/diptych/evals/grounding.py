"""Grounding: does what a model finds in an image lie where it is? Heat maps of phrases against boxes."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.data.decode import decode_image
from diptych.data.frame import Frame
from diptych.data.image_reader import ImageReader
from diptych.evals.boxes import Phrase, Pointing, phrases_of, pointing
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult, ItemTable, some
from diptych.evals.heat_pictures import blend, encoded
from diptych.evals.items import item_table, numbered
from diptych.evals.prompts import fill
from diptych.evals.scoring import choose_places, describe_broken, distinct
from diptych.evals.statistics import mean_estimate, paired_difference
from diptych.models.heat_maps import CHANNELS, Method, default_method, heat_maps, on_image, unmappable
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Picture, Pictures

KINDS = 20
"""So many kinds of things are shown apart, the most frequent."""


class GroundingConfig(EvalConfig):
    """Settings of the grounding eval."""

    full: ClassVar[dict[str, Any] | None] = {"max_items": 300}
    max_items: int = Field(500, ge=0)
    method: Literal["auto", "legrad", "legrad_blocks", "gradcam", "gscorecam"] = "auto"
    """How maps are made (`models/heat_maps.py`). "auto": LeGrad of transformers of ours, else Grad-CAM."""
    template: str = "{}"
    """What each phrase is put into."""
    tolerance: float = Field(0.0, ge=0)
    """The pointing game once more, a point so many pixels of the image outside a box being right too: 15 in the papers
    on photographs of some 500 pixels a side. It is reported beside the strict one, under a name of its own."""
    threshold: float = Field(0.5, gt=0, le=1)
    """From which heat (0..1, min-max) on a pixel counts as marked, for the IoU: set before looking, not tuned."""
    channels: int = Field(CHANNELS, ge=1)
    """How many channels gScoreCAM weighs."""
    batch_size: int = Field(32, ge=1)
    """Pairs of image and phrase whose maps are made at once."""
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(12, ge=0)
    """How many of the best and of the worst maps go into the report."""

    def build(self) -> "Grounding":
        """The eval."""
        return Grounding(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where no map can be made, or records have no boxes."""
        reason = super().unsuited(model, data) or unmappable(model, self.chosen())
        if reason:
            return reason
        has = any(data.meta(p).get("boxes") or data.meta(p).get("objects") for p in some(data))
        return "" if has else "its records have no boxes in their meta"

    def chosen(self) -> Method | None:
        """The method, None: what suits the model."""
        return None if self.method == "auto" else self.method


class _Asked(NamedTuple):
    """A phrase of a record's image, and what became of it."""

    place: int
    phrase: Phrase
    fit: Pointing
    near: Pointing
    other: float | None
    """The hit of the maps of the image's other phrases in this phrase's boxes; None: it has no other."""


class Grounding(Eval):
    """The pointing game: is the hottest point of a phrase's map in a box of it? Against the image's centre and chance.

    Chance is the share of the image that the boxes cover; the centre, where photographers put things, is a strong
    baseline, and the difference to it is tested in pairs. `pointing_above_other_phrase` is the same map against that of
    another phrase of the same image: a model that finds things, but does not read, has none.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "pointing"

    def __init__(self, config: GroundingConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`, whose records must say in their meta where things are."""
        config = self.config
        if reason := unmappable(model, config.chosen()):
            raise EvalError(f"grounding must be given a model of which heat maps can be made; got one where {reason}.")
        places = choose_places(data, config.max_items)
        phrases = {p: phrases_of(data.meta(p), data.uid(p)) for p in places}
        with_boxes = [p for p in places if phrases[p]]
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        asked, clusters = self._asked(model, reader, with_boxes, phrases)
        if not asked:
            raise EvalError(
                f"grounding must be given images with boxes; got {len(with_boxes)} of {len(places)} with boxes, "
                f"and {len(reader.broken)} broken images. Pack with boxes in the meta, or take the scenes corpus."
            )
        values = self._values(asked)
        settings = {
            "method": config.chosen() or default_method(model),
            "phrases": len(asked),
            "images": len(with_boxes),
            "without_boxes": len(places) - len(with_boxes),
            "broken_images": describe_broken(reader),
            "resolution": model.model.config.image_format.resolution,
        }
        return config.result(
            model,
            data,
            metrics=self._metrics(asked, values, clusters),
            settings=settings,
            items=_tables(data, asked, values, clusters) if artifacts else {},
            figures=self._figures(model, data, asked, values, clusters) if artifacts else (),
        )

    def _asked(
        self, model: Pretrained, reader: ImageReader, places: Sequence[int], phrases: dict[int, list[Phrase]]
    ) -> tuple[list[_Asked], Int64[np.ndarray, " n"]]:
        """What became of every phrase, image by image, and which phrases are of one image (equal bytes)."""
        found: list[_Asked] = []
        hashes: list[bytes] = []
        for batch in reader.batches(places):
            rows = [(i, q) for i, p in enumerate(batch.places) for q in phrases[p]]
            heat = self._maps(model, batch.images, [i for i, _ in rows], [q.text for _, q in rows])
            row = 0
            for place, image_hash in zip(batch.places, batch.hashes, strict=True):
                mine = phrases[place]
                found += self._of_image(reader, place, mine, heat[row : row + len(mine)])
                hashes += [image_hash] * len(mine)
                row += len(mine)
        return found, distinct(hashes)

    def _maps(self, model: Pretrained, images: Tensor, of: list[int], texts: list[str]) -> Float[np.ndarray, "q s s"]:
        c = self.config
        said = [fill(c.template, t) for t in texts]
        size = c.batch_size
        return torch.cat(
            [
                heat_maps(model, images[of[i : i + size]], said[i : i + size], c.chosen(), c.channels)
                for i in range(0, len(of), size)
            ]
        ).numpy()

    def _of_image(self, reader: ImageReader, place: int, mine: list[Phrase], heat: Any) -> list[_Asked]:
        c = self.config
        height, width = decode_image(reader.split.image_bytes(place)).shape[1:]
        frame = Frame.of(width, height, reader.format)
        found = []
        for n, phrase in enumerate(mine):
            fit = pointing(heat[n], frame, phrase.boxes, c.threshold)
            near = pointing(heat[n], frame, phrase.boxes, c.threshold, c.tolerance) if c.tolerance else fit
            others = [pointing(heat[m], frame, phrase.boxes, c.threshold).hit for m in range(len(mine)) if m != n]
            found.append(_Asked(place, phrase, fit, near, float(np.mean(others)) if others else None))
        return found

    def _values(self, asked: list[_Asked]) -> dict[str, Float64[np.ndarray, " n"]]:
        """Each phrase's share of every metric over all phrases."""
        fits = np.array([a.fit for a in asked])
        found = {name: fits[:, i] for i, name in enumerate(("pointing", "energy_inside", "iou", "area", "centre"))}
        if self.config.tolerance:
            found[self._near()] = np.array([a.near.hit for a in asked])
        return found

    def _near(self) -> str:
        return f"pointing_within_{self.config.tolerance:g}px"

    def _metrics(
        self, asked: list[_Asked], values: dict[str, Float64[np.ndarray, " n"]], clusters: Int64[np.ndarray, " n"]
    ) -> dict[str, Estimate]:
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        area = float(values["area"].mean())
        chance = {"centre": area, "area": None, self._near(): float(np.mean([a.near.area for a in asked]))}
        found = {
            name: mean_estimate(v, clusters, chance.get(name, area), **how)
            for name, v in values.items()
            if name != "area"
        }
        found["pointing_above_centre"] = self._difference(values["pointing"], values["centre"], clusters)
        two = [i for i, a in enumerate(asked) if a.other is not None]
        if two:
            other = np.array([asked[i].other for i in two], dtype=float)
            found["pointing_above_other_phrase"] = self._difference(values["pointing"][two], other, clusters[two])
        return found

    def _difference(self, a: np.ndarray, b: np.ndarray, clusters: np.ndarray) -> Estimate:
        t = paired_difference(a, b, clusters, self.config.bootstrap, self.config.seed)
        low, high = min(t.low, t.difference), max(t.high, t.difference)
        return Estimate(value=t.difference, low=low, high=high, chance=0.0, n=t.n)

    def _figures(
        self,
        model: Pretrained,
        data: Any,
        asked: list[_Asked],
        values: dict[str, Float64[np.ndarray, " n"]],
        clusters: Int64[np.ndarray, " n"],
    ) -> tuple[Figure, ...]:
        metrics = self._metrics(asked, values, clusters)
        named = [n for n in metrics if not n.startswith("pointing_above")]
        whole = Intervals(
            title="Against the centre and chance",
            words="Chance is the share of the image that the boxes of a phrase cover; of the IoU it is what a map that "
            "marks everything has.",
            rows=tuple(_row(n.replace("_", " "), metrics[n]) for n in named),
        )
        kinds = np.array([a.phrase.kind for a in asked])
        names, counts = np.unique(kinds, return_counts=True)
        rows = []
        for kind in names[np.argsort(-counts, kind="stable")][:KINDS].tolist():
            mine = kinds == kind
            e = mean_estimate(values["pointing"][mine], clusters[mine], float(values["area"][mine].mean()))
            rows.append(_row(kind, e))
        kind_rows = Intervals(
            title="By what is to be found",
            words="The pointing game for each kind of thing, the most frequent first.",
            rows=tuple(rows),
        )
        order = np.lexsort((-values["energy_inside"], -values["pointing"])).tolist()
        most = self.config.pictures
        sheets = (("Best maps", order[:most]), ("Worst maps", order[::-1][:most]))
        pictures = [self._sheet(model, data, asked, title, chosen) for title, chosen in sheets if chosen]
        return (whole, kind_rows, *pictures)

    def _sheet(self, model: Pretrained, data: Any, asked: list[_Asked], title: str, chosen: list[int]) -> Pictures:
        """Maps over their images, with the boxes outlined."""
        reader = ImageReader(data, model.model.config.image_format, self.config.batch_size)
        shown = []
        for i in chosen:
            a = asked[i]
            batch = next(iter(reader.batches([a.place])))
            image = decode_image(data.image_bytes(a.place))
            frame = Frame.of(image.shape[2], image.shape[1], reader.format)
            heat = torch.from_numpy(self._maps(model, batch.images, [0], [a.phrase.text])[0])
            picture = encoded(blend(image, on_image(heat, frame), a.phrase.boxes))
            detail = f"{a.fit.energy:.0%} of the heat inside, boxes {a.fit.area:.0%} of the image"
            verdict: Literal["right", "wrong"] = "right" if a.fit.hit > 0.5 else "wrong"
            shown.append(Picture(image=picture, caption=a.phrase.text, detail=detail, verdict=verdict))
        return Pictures(
            title=title, words="Red is where the model sees it, white are its boxes.", pictures=tuple(shown)
        )


def _row(name: str, e: Estimate) -> Interval:
    return Interval(name=name, value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n)


def _tables(
    data: Any, asked: list[_Asked], values: dict[str, Float64[np.ndarray, " n"]], clusters: Int64[np.ndarray, " n"]
) -> dict[str, ItemTable]:
    keys = numbered([data.uid(a.place) for a in asked])
    every = {n: v for n, v in values.items() if n != "area"}
    every["pointing_above_centre"] = values["pointing"] - values["centre"]
    tables = {"phrases": item_table(keys, every, clusters)}
    two = [i for i, a in enumerate(asked) if a.other is not None]
    if two:
        above = np.array([values["pointing"][i] - float(asked[i].other or 0) for i in two])
        tables["phrases_of_several"] = item_table(
            [keys[i] for i in two], {"pointing_above_other_phrase": above}, clusters[two]
        )
    return tables
