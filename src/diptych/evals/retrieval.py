"""Retrieval: does a text find its image among all images, and an image its text among all texts?"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals import ranking
from diptych.evals.eval import Eval, EvalResult, some
from diptych.evals.ranking import Matches, Ties
from diptych.evals.retrieval_metrics import items_of, metrics_of, recall_curves
from diptych.evals.retrieval_pictures import RetrievalPictures
from diptych.evals.scoring import (
    PAIRS_SIDE,
    EmbeddedItems,
    Gallery,
    PairScoringConfig,
    ScoredItems,
    Scoring,
    choose_scoring,
    describe_broken,
    places_to_score,
    read_gallery,
)
from diptych.evals.vector_ranks import vector_ranks
from diptych.models.pretrained import Pretrained


class RetrievalConfig(PairScoringConfig):
    """Settings of the retrieval eval."""

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 5, 10), min_length=1)
    """The K of recall@K: whether a right answer is among the K best."""
    captions: Literal["first", "all"] = "first"
    """Take each image's first caption, or all: an image is then found by any, and each caption is a query."""
    ties: Ties = "half"
    """Whether a right answer stands in the middle of the wrong ones that score alike (half: what a fair coin gives on
    average), before them (optimistic) or behind them (pessimistic)."""
    batch_size: int = Field(64, ge=1)
    chunk: int = Field(0, ge=0)
    """Without embeddings: images whose scores against all texts are held at once; 0: 32."""
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(24, ge=0)
    """How many of the best and of the worst retrievals go into the report, each way."""
    similarity: int = Field(64, ge=0)
    """Side of the similarity matrix of the first items."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 1000, "most_scored": 100}
    full: ClassVar[Mapping[str, Any] | None] = {"most_scored": 200}

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records have no captions."""
        captioned = sum(bool(data.captions(p)) for p in some(data))
        return super().unsuited(model, data) or ("" if captioned > 1 else "its records have no captions")

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
        scoring = choose_scoring(model, config, "retrieval")
        places = places_to_score(data, config, scoring)
        captions = {p: self._captions(data, p) for p in places}
        without = [p for p in places if not captions[p]]
        if len(places) - len(without) < 2:
            raise EvalError(
                f"retrieval must be given at least 2 images with captions; got {len(places) - len(without)} of "
                f"{len(places)} in {data.name}. Choose a larger split, or pack with captions."
            )
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
        del captions  # there may be millions
        items = self._items(model, reader, gallery, matches, distinct_texts, scoring)
        if isinstance(items, EmbeddedItems):
            found = vector_ranks(items.images, items.texts, matches, config.ties)
        else:
            found = ranking.ranks(items.rows, items.pairs(matches), matches, config.chunk or PAIRS_SIDE, config.ties)
        settings = {
            "images": len(gallery.places),
            "captions_used": len(texts),
            "distinct_images": len(matches.first_image),
            "distinct_captions": len(distinct_texts),
            "broken_images": describe_broken(reader),
            "images_without_caption": len(without),
            "scored_by": scoring.by,
        }
        shown = config.pictures, config.similarity
        pictures = RetrievalPictures(data, gallery, matches, distinct_texts, items, found, *shown)
        return config.result(
            model,
            data,
            metrics=metrics_of(found, matches, config.k, config.bootstrap, config.seed),
            settings=settings,
            items=items_of(found, matches, [data.uid(p) for p in gallery.places], config.k) if artifacts else {},
            figures=(recall_curves(found, matches),) if artifacts else (),
            artifacts=pictures.all() if artifacts else {},
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
            copied = len(matches.first_image) < len(gallery.vectors)  # a table may fill the memory: no second one
            vectors = gallery.vectors[matches.first_image] if copied else gallery.vectors
            return EmbeddedItems(vectors, model.embed_text(texts))
        places = [gallery.places[i] for i in matches.first_image.tolist()]
        return ScoredItems(model, reader, places, texts, scoring)
