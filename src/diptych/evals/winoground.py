"""Winoground: two images and two captions of the same words; does the model tell which belongs to which?

Source: Thrush et al., "Winoground: Probing vision and language models for visio-linguistic compositionality",
arXiv:2204.03162, section 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.candidates import CandidateScores, padded
from diptych.evals.eval import Estimate, Eval, EvalResult, ItemTable
from diptych.evals.items import item_table
from diptych.evals.scoring import (
    PairScoringConfig,
    Scoring,
    choose_places,
    choose_scoring,
    describe_broken,
    distinct,
    read_gallery,
    thumbnail,
)
from diptych.evals.statistics import mean_estimate, share_estimate
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Picture, Pictures

CHANCE = {"text_score": 1 / 4, "image_score": 1 / 4, "group_score": 1 / 6, "pairs_right": 1 / 2}
"""What scores drawn at random reach. Group: of the 24 orders of four scores, both right ones are on top in 4."""

TAGS = ("collapsed_tag", "tag")
"""Where a record's meta names what kind of swap it is, unless told otherwise."""


class WinogroundConfig(PairScoringConfig):
    """Settings of the Winoground eval."""

    tag_field: str = ""
    """Which value of a record's meta is its tag (a text or a list of them); empty: collapsed_tag, else tag."""
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(8, ge=0)
    """How many of the items with the worst mistakes go into the report, each with both pictures."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 400}

    def build(self) -> "Winoground":
        """The eval."""
        return Winoground(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Why not: no scores, or no two images and two captions in the first records."""
        found = any(_captions(data, p) for p in range(min(8, len(data))))
        return super().unsuited(model, data) or ("" if found else "no records of two images and two captions")


class Items(NamedTuple):
    """Readable items: places, clusters (equal for items with an equal image), captions, and their scores
    s[item, image, caption]."""

    places: list[int]
    clusters: Int64[np.ndarray, " n"]
    captions: list[tuple[str, str]]
    scores: Float64[np.ndarray, "n 2 2"]


class BothImages:
    """A split of records with two images as one with twice as many of one image each: 2 i and 2 i + 1."""

    def __init__(self, split: Any) -> None:
        self.split = split

    def image_bytes(self, place: int) -> bytes:
        """The first image of record i at 2 i, its second at 2 i + 1."""
        return bytes(self.split.image_bytes(place // 2, place % 2))

    def uid(self, place: int) -> str:
        """The record's, and which image."""
        return f"{self.split.uid(place // 2)}#{place % 2}"


class Winoground(Eval):
    """Text, image and group score, and the share of the four comparisons that are right, over all items and by tag.

    With s(c, i) for caption c and image i, an item has its text right if s(c0, i0) > s(c1, i0) and s(c1, i1) >
    s(c0, i1); its image if s(c0, i0) > s(c0, i1) and s(c1, i1) > s(c1, i0); its group if both. A tie is wrong. A model
    that does not look has every text wrong, since one caption cannot be the better of both images: 0, not chance.
    `pairs_right` counts comparisons one by one (a tie: half), and so tells weak models apart where the scores cannot.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "group_score"

    def __init__(self, config: WinogroundConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`, whose records are image, text, image, text."""
        config = self.config
        captions = {p: c for p in choose_places(data, config.max_items) if (c := _captions(data, p))}
        if not captions:
            raise EvalError(
                f"winoground must be given records of two images and two captions; got none in the {len(data)} of "
                f"{data.name}. For one image and wrong captions use composition."
            )
        scoring = choose_scoring(model, config, "winoground")
        reader = ImageReader(BothImages(data), model.model.config.image_format, config.batch_size)
        items = score(model, reader, captions, scoring)
        right = judge(items.scores)
        tags = self._tags(data, items.places)
        settings = {
            "items": len(items.places),
            "records_without_two_images": len(data) - len(captions) if not config.max_items else 0,
            "broken_images": describe_broken(reader),
            "scored_by": scoring.by,
            "tags": {tag: len(rows) for tag, rows in tags.items()},
            "ties": "wrong (strict, as published); of pairs_right half",
        }
        metrics = {name: self._estimate(name, values, items.clusters) for name, values in right.items()}
        for tag, rows in tags.items():
            for name in ("text_score", "image_score", "group_score"):
                metrics[f"{name}_{_spelled(tag)}"] = self._estimate(name, right[name][rows], items.clusters[rows])
        return config.result(
            model,
            data,
            metrics=metrics,
            settings=settings,
            items=_tables(data, items, right, tags) if artifacts else {},
            figures=self._figures(data, items, metrics, right, tags) if artifacts else (),
        )

    def _estimate(self, name: str, values: Float64[np.ndarray, " n"], clusters: Int64[np.ndarray, " n"]) -> Estimate:
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        estimate = mean_estimate if name == "pairs_right" else share_estimate
        return estimate(values, clusters, CHANCE[name], **how)

    def _tags(self, data: Any, places: Sequence[int]) -> dict[str, Int64[np.ndarray, " m"]]:
        """Which items have each tag; an item may have several."""
        found: dict[str, list[int]] = {}
        for n, place in enumerate(places):
            meta = data.meta(place)
            fields = (self.config.tag_field,) if self.config.tag_field else TAGS
            given: Any = next((meta[f] for f in fields if meta.get(f)), [])
            for tag in [given] if isinstance(given, str) else given if isinstance(given, list) else []:
                found.setdefault(str(tag), []).append(n)
        return {tag: np.array(found[tag]) for tag in sorted(found)}

    def _figures(
        self,
        data: Any,
        items: Items,
        metrics: dict[str, Estimate],
        right: dict[str, Float64[np.ndarray, " n"]],
        tags: dict[str, Int64[np.ndarray, " m"]],
    ) -> tuple[Figure, ...]:
        rows = [_row(name.replace("_", " "), metrics[name]) for name in right]
        for tag in tags:
            rows += [
                _row(f"{tag}: {name.replace('_', ' ')}", metrics[f"{name}_{_spelled(tag)}"])
                for name in ("text_score", "image_score", "group_score")
            ]
        words = "A model that does not look has a text score and a group score of 0, below chance."
        scores = Intervals(title="Scores", words=words, rows=tuple(rows))
        margin = np.minimum(*(_margins(items.scores, axis).min(1) for axis in (1, 2)))
        pictures: list[Picture] = []
        for n in np.argsort(margin, kind="stable")[: self.config.pictures].tolist():
            pictures += [self._picture(data, items, n, i, bool(right["group_score"][n])) for i in (0, 1)]
        words = "Two pictures an item, next to each other: each with its own caption's score and the other's."
        return scores, Pictures(title="Hardest items", words=words, pictures=tuple(pictures), shown=12)

    def _picture(self, data: Any, items: Items, n: int, i: int, right: bool) -> Picture:
        own, other = items.captions[n][i], items.captions[n][1 - i]
        s = items.scores[n, i]
        image = thumbnail(BothImages(data), 2 * items.places[n] + i)
        verdict = "right" if s[i] > s[1 - i] else "wrong"
        detail = f"{other} ({s[1 - i]:.3f})"
        return Picture(image=image, caption=f"{own} ({s[i]:.3f})", detail=detail, verdict=verdict)


def score(model: Pretrained, reader: ImageReader, captions: Mapping[int, tuple[str, str]], scoring: Scoring) -> Items:
    """The four scores of every item both of whose images can be read."""
    asked = [2 * p + i for p in captions for i in (0, 1)]
    gallery = read_gallery(model, reader, asked, "winoground", scoring.by == "embeddings")
    row = {place: n for n, place in enumerate(gallery.places)}
    places = [p for p in captions if 2 * p in row and 2 * p + 1 in row]
    if not places:
        raise EvalError(
            f"winoground must be given an item both of whose images can be read; got {len(captions)} items and "
            f"{len(reader.broken)} broken images. Look at the split with: diptych inspect"
        )
    texts = list(dict.fromkeys(t for p in places for t in captions[p]))
    number = {t: n for n, t in enumerate(texts)}
    images = [2 * p + i for p in places for i in (0, 1)]
    candidates = [[number[t] for t in captions[p]] for p in places for _ in (0, 1)]
    if gallery.vectors is not None:
        words = model.embed_text(texts)
        rows = [words[c] @ gallery.vectors[row[i]] for i, c in zip(images, candidates, strict=True)]
    else:
        rows = CandidateScores(model, reader, images, texts, scoring).of_each(candidates)
    of_image = distinct([gallery.hashes[row[i]] for i in images]).reshape(-1, 2)
    clusters = np.unique(np.sort(of_image, 1), axis=0, return_inverse=True)[1].reshape(-1)
    return Items(places, clusters, [captions[p] for p in places], padded(rows).reshape(-1, 2, 2))


def judge(scores: Float64[np.ndarray, "n 2 2"]) -> dict[str, Float64[np.ndarray, " n"]]:
    """What is right of each item, from s[item, image, caption]; the n-th caption belongs to the n-th image."""
    text, image = _margins(scores, 2), _margins(scores, 1)
    texts, images = (np.asarray((margin > 0).all(1), dtype=np.float64) for margin in (text, image))
    pairs = np.concatenate([text, image], 1)
    shares = ((pairs > 0) + 0.5 * (pairs == 0)).mean(1)
    return {"text_score": texts, "image_score": images, "group_score": texts * images, "pairs_right": shares}


def _margins(scores: Float64[np.ndarray, "n 2 2"], axis: int) -> Float64[np.ndarray, "n 2"]:
    """By how much each right score exceeds the wrong one beside it: over captions (axis 2), or over images (axis 1)."""
    own = scores[:, [0, 1], [0, 1]]
    other = scores[:, [0, 1], [1, 0]] if axis == 2 else scores[:, [1, 0], [0, 1]]
    return own - other


def _captions(split: Any, place: int) -> tuple[str, str] | None:
    """The two captions of a record with two images and two texts, the n-th of the n-th; None for any other."""
    pieces = split.pieces(place)
    if len(pieces.images) != 2 or len(pieces.texts) != 2 or not all(t.texts for t in pieces.texts):
        return None
    return pieces.texts[0].texts[0], pieces.texts[1].texts[0]


def _tables(
    split: Any,
    items: Items,
    right: dict[str, Float64[np.ndarray, " n"]],
    tags: dict[str, Int64[np.ndarray, " m"]],
) -> dict[str, ItemTable]:
    keys = np.array([split.uid(p) for p in items.places])
    tables = {"items": item_table(keys.tolist(), right, items.clusters)}
    for tag, rows in tags.items():
        mine = {f"{n}_{_spelled(tag)}": right[n][rows] for n in ("text_score", "image_score", "group_score")}
        tables[f"items_{_spelled(tag)}"] = item_table(keys[rows].tolist(), mine, items.clusters[rows])
    return tables


def _row(name: str, e: Estimate) -> Interval:
    return Interval(name=name, value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n)


def _spelled(tag: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in tag.lower()).strip("_") or "tag"
