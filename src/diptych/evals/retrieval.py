"""Retrieval: does a text find its image among all images, and an image its text among all texts?"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.config import to_dict
from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals import ranking
from diptych.evals.eval import Estimate, Eval, EvalResult, ItemTable
from diptych.evals.items import item_table, numbered
from diptych.evals.ranking import Matches, Ranks
from diptych.evals.scoring import (
    PAIRS_SIDE,
    EmbeddedItems,
    Gallery,
    Items,
    PairScoringConfig,
    ScoredItems,
    Scoring,
    choose_places,
    choose_scoring,
    describe_broken,
    read_gallery,
    rounded,
    thumbnail,
)
from diptych.evals.statistics import mean_estimate, median_estimate, share_estimate
from diptych.models.pretrained import Pretrained


class RetrievalConfig(PairScoringConfig):
    """Settings of the retrieval eval."""

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 5, 10), min_length=1)
    """The K of recall@K: whether a right answer is among the K best."""
    captions: Literal["first", "all"] = "first"
    """Take each image's first caption, or all: an image is then found by any, and each caption is a query."""
    batch_size: int = Field(64, ge=1)
    chunk: int = Field(0, ge=0)
    """Images whose scores against all texts are held at once; 0: what fits in 32 MB."""
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(24, ge=0)
    """How many of the best and of the worst retrievals go into the report, each way."""
    similarity: int = Field(64, ge=0)
    """Side of the similarity matrix of the first items."""

    def build(self) -> "Retrieval":
        """The eval."""
        return Retrieval(self)


class Retrieval(Eval):
    """R@K, median rank and MRR both ways over the whole split, with intervals over images and the level of guessing.

    Image to text counts if *any* of the image's captions is among the K best; text to image if its image is, or
    another with equal bytes or an equal caption (`ranking.Matches`). Where few distinct captions repeat (class names),
    text to image has only as many independent queries, and its intervals are over those. Works from embeddings, or
    else from `score` or log p(text | image) (`scored_by`), with or without the prior of the words (`text_prior`).
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "t2i_recall_at_1"

    def __init__(self, config: RetrievalConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`."""
        config = self.config
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        places = choose_places(data, config.max_items)
        captions = {p: self._captions(data, p) for p in places}
        without = [p for p in places if not captions[p]]
        if len(places) - len(without) < 2:
            raise EvalError(
                f"retrieval must be given at least 2 images with captions; got {len(places) - len(without)} of "
                f"{len(places)} in {data.name}. Choose a larger split, or pack with captions."
            )
        scoring = choose_scoring(model, config, "retrieval")
        readable = [p for p in places if captions[p]]
        gallery = read_gallery(model, reader, readable, "retrieval", scoring.by == "embeddings")
        if len(gallery.places) < 2:
            raise EvalError(
                f"retrieval must be given at least 2 readable images with captions; got {len(gallery.places)}, and "
                f"{len(reader.broken)} broken ones. Choose a larger split."
            )
        matches = Matches.of(gallery.hashes, [captions[p] for p in gallery.places])
        texts = [text for p in gallery.places for text in captions[p]]
        distinct_texts = [texts[i] for i in matches.first_text.tolist()]
        items = self._items(model, reader, gallery, matches, distinct_texts, scoring)
        chunk = config.chunk or (PAIRS_SIDE if isinstance(items, ScoredItems) else 0)
        found = ranking.ranks(items.rows, items.pairs(matches), matches, chunk)
        settings = {
            **{k: v for k, v in to_dict(config).items() if k != "kind"},
            "images": len(gallery.places),
            "captions_used": len(texts),
            "distinct_images": len(matches.first_image),
            "distinct_captions": len(distinct_texts),
            "broken_images": describe_broken(reader),
            "images_without_caption": len(without),
            "scored_by": scoring.by,
        }
        pictures = _Pictures(config, data, gallery, matches, distinct_texts, items, found)
        return EvalResult(
            task="retrieval",
            data=config.data,
            split=str(data.name),
            metrics=self._metrics(found, matches),
            settings=settings,
            items=self._brought(data, gallery, found, matches) if artifacts else {},
            artifacts=pictures.all() if artifacts else {},
            fingerprint=model.fingerprint,
        )

    def _captions(self, data: Any, place: int) -> tuple[str, ...]:
        captions = tuple(data.captions(place))
        return captions[:1] if self.config.captions == "first" else tuple(dict.fromkeys(captions))

    def _items(
        self,
        model: Pretrained,
        reader: ImageReader,
        gallery: Gallery,
        matches: Matches,
        texts: list[str],
        scoring: Scoring,
    ) -> EmbeddedItems | ScoredItems:
        if gallery.vectors is not None:
            return EmbeddedItems(gallery.vectors[matches.first_image], model.embed_text(texts))
        places = [gallery.places[i] for i in matches.first_image.tolist()]
        return ScoredItems(model, reader, places, texts, scoring)

    def _metrics(self, found: Ranks, matches: Matches) -> dict[str, Estimate]:
        image_of, text_of = matches.image_of.numpy(), matches.text_of.numpy()
        i2t = self._direction(
            "i2t", found.i2t.numpy()[image_of], image_of, matches.right_texts().numpy()[image_of], len(text_of)
        )
        clusters, right = _caption_clusters(matches), matches.right_images().numpy()[text_of]
        t2i = self._direction("t2i", found.t2i.numpy()[text_of], clusters, right, len(image_of))
        return t2i | i2t

    def _brought(self, split: Any, gallery: Gallery, found: Ranks, matches: Matches) -> dict[str, ItemTable]:
        """Whether each image's and each caption's right answer is among the K best, and 1 / its rank."""
        image_of, text_of = matches.image_of.numpy(), matches.text_of.numpy()
        uids = [split.uid(p) for p in gallery.places]
        captions = numbered([uids[i] for i in matches.owner.tolist()])
        queries = {
            "images": ("i2t", uids, found.i2t.numpy()[image_of], image_of),
            "captions": ("t2i", captions, found.t2i.numpy()[text_of], _caption_clusters(matches)),
        }
        tables: dict[str, ItemTable] = {}
        for name, (way, keys, ranks, clusters) in queries.items():
            values = {f"{way}_recall_at_{k}": ranks <= k for k in self.config.k} | {f"{way}_mrr": 1 / ranks}
            tables[name] = item_table(keys, values, clusters)
        return tables

    def _direction(
        self,
        way: str,
        ranks: Float64[np.ndarray, " q"],
        clusters: np.ndarray,
        right: Float64[np.ndarray, " q"],
        gallery: int,
    ) -> dict[str, Estimate]:
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        metrics = {
            f"{way}_recall_at_{k}": share_estimate(
                ranks <= k, clusters, ranking.chance_recall(right, gallery, k), **how
            )
            for k in self.config.k
        }
        chance = ranking.chance_median_rank(right, gallery)
        metrics[f"{way}_median_rank"] = median_estimate(ranks, clusters, chance, **how)
        chance = ranking.chance_mean_reciprocal_rank(right, gallery)
        metrics[f"{way}_mrr"] = mean_estimate(1 / ranks, clusters, chance, **how)
        return metrics


class _Pictures:
    """What a report shows of a retrieval: the best and the worst both ways, the similarity matrix, the histogram."""

    def __init__(
        self,
        config: RetrievalConfig,
        split: Any,
        gallery: Gallery,
        matches: Matches,
        texts: list[str],
        items: Items,
        found: Ranks,
    ) -> None:
        self.config, self.split, self.matches, self.texts = config, split, matches, texts
        self.items, self.found = items, found
        self.places = [gallery.places[i] for i in matches.first_image.tolist()]  # of the distinct images
        self.right = {(i, t) for i, t in matches.pairs.tolist()}
        self.texts_of: dict[int, list[int]] = {}
        self.image_of_text: dict[int, int] = {}
        for image, text in matches.pairs.tolist():
            self.texts_of.setdefault(image, []).append(text)
            self.image_of_text.setdefault(text, image)

    def all(self) -> dict[str, Any]:
        """Every artifact, as JSON values."""
        return {
            **self._text_to_image(),
            **self._image_to_text(),
            "similarity": self._similarity(),
            "rank_histogram": {
                "i2t": _histogram(self.found.i2t[self.matches.image_of]),
                "t2i": _histogram(self.found.t2i[self.matches.text_of]),
            },
        }

    def _text_to_image(self) -> dict[str, Any]:
        of_text = [self.image_of_text[t] for t in range(len(self.texts))]
        chosen = _ends(self.found.t2i, self.found.best_of_text, of_text, self.config.pictures)
        queries = sorted({t for texts in chosen.values() for t in texts})
        if not queries:
            return {}
        scores = dict(zip(queries, self.items.columns(queries).T, strict=True))
        return {f"t2i_{end}": [self._found_images(t, scores[t]) for t in texts] for end, texts in chosen.items()}

    def _found_images(self, text: int, scores: Tensor) -> dict[str, Any]:
        target = self.image_of_text[text]
        return {
            "query": self.texts[text],
            "rank": float(self.found.t2i[text]),
            "target": {**self._image(target), "score": float(scores[target])},
            "hits": [
                {**self._image(i), "score": float(scores[i]), "correct": (i, text) in self.right} for i in _top(scores)
            ],
        }

    def _image_to_text(self) -> dict[str, Any]:
        kinds = list(range(len(self.places)))
        chosen = _ends(self.found.i2t, self.found.best_of_image, kinds, self.config.pictures)
        return {f"i2t_{end}": [self._found_texts(i) for i in images] for end, images in chosen.items()}

    def _found_texts(self, image: int) -> dict[str, Any]:
        scores = self.items.rows(image, image + 1)[0]
        return {
            "query": {
                **self._image(image),
                "captions": [self.texts[t] for t in self.texts_of[image]],
                "score": float(self.found.best_of_image[image]),
            },
            "rank": float(self.found.i2t[image]),
            "hits": [
                {"caption": self.texts[t], "score": float(scores[t]), "correct": (image, t) in self.right}
                for t in _top(scores)
            ],
        }

    def _similarity(self) -> dict[str, Any]:
        size = min(self.config.similarity, len(self.places))
        if not size:
            return {"matrix": [], "captions": [], "thumbs": []}
        texts = [self.texts_of[i][0] for i in range(size)]
        return {
            "matrix": rounded(self.items.rows(0, size)[:, texts]),  # rows: images
            "captions": [self.texts[t] for t in texts],
            "thumbs": [thumbnail(self.split, self.places[i], 48) for i in range(size)],
        }

    def _image(self, image: int) -> dict[str, Any]:
        place = self.places[image]
        captions = [self.texts[t] for t in self.texts_of[image]]
        return {"uid": self.split.uid(place), "thumb": thumbnail(self.split, place), "caption": captions[0]}


def _caption_clusters(matches: Matches) -> Int64[np.ndarray, " c"]:
    """Captions of one image are not independent, and equal captions are one and the same query: whichever are fewer."""
    if len(matches.first_image) <= len(matches.first_text):
        return matches.image_of.numpy()[matches.owner.numpy()]
    return matches.text_of.numpy()


def _ends(ranks: Tensor, scores: Tensor, groups: Sequence[int], most: int) -> dict[str, list[int]]:
    """The `most` best and worst queries, at most one of each group; equal ranks by the right answer's score."""
    order = np.lexsort((-scores.numpy(), ranks.numpy())).tolist()
    ends: dict[str, list[int]] = {}
    for name, queue in (("best", order), ("worst", order[::-1])):
        seen: set[int] = set()
        chosen: list[int] = []
        ends[name] = chosen
        for query in queue:
            if len(chosen) < most and groups[query] not in seen:
                seen.add(groups[query])
                chosen.append(query)
    return ends


def _top(scores: Tensor, k: int = 5) -> list[int]:
    return list(torch.sort(scores, descending=True, stable=True).indices[:k].tolist())


def _histogram(ranks: Tensor) -> dict[str, list[int]]:
    """How many queries have a rank in [1, 2), [2, 4), [4, 8), ...; `bins` are where they begin."""
    edges = 2 ** np.arange(int(np.log2(float(ranks.max()))) + 2)
    counts, _ = np.histogram(ranks.numpy(), bins=edges)
    return {"bins": edges[:-1].tolist(), "counts": counts.tolist()}
