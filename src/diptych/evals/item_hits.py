"""Whether each image gets its right answer first: its class among all classes, or its caption among all captions.

What evals use that ask *for whom* or *on what* a model is right (by group, by near copy), not only how often.
"""

from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from pydantic import Field

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals import ranking
from diptych.evals.class_guesses import class_vectors, guess
from diptych.evals.class_labels import read_labels
from diptych.evals.prompts import Classes, fill, read_classes, read_templates
from diptych.evals.ranking import Matches
from diptych.evals.scoring import (
    PAIRS_SIDE,
    EmbeddedItems,
    Gallery,
    PairScoringConfig,
    ScoredItems,
    Scoring,
    SomeTexts,
    choose_places,
    choose_scoring,
    dataset_folder,
    distinct,
    places_to_score,
    read_gallery,
)
from diptych.models.pretrained import Pretrained

LOOK = 64
"""Records that are looked at to know what a split says of its images."""


class HitConfig(PairScoringConfig):
    """Base of the settings of evals that ask whether each image gets its right answer."""

    abstract: ClassVar[bool] = True
    answers: Literal["auto", "classes", "captions", "none"] = "auto"
    """What must come first: the image's class (zero-shot), or its first caption among those of all images; "none": no
    answers are asked for. "auto": classes where the records have labels, else captions, else none."""
    classes: str | tuple[str, ...] = ""
    """As for zero_shot: a file, names, or empty for the dataset's classes.txt or the labels of the split."""
    templates: str | tuple[str, ...] = ""
    """As for zero_shot: a file, a packaged set, or empty for the dataset's templates.txt or "clip"."""
    label_field: str = ""
    """Which value of a record's meta is its class; empty: label or class_index."""
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0


class Hits(NamedTuple):
    """What was asked ("classes", "captions", "none"), of which images, which of them got their right answer first
    (n,), and with what chance each would by guessing (n,). Images with equal bytes are one."""

    asked: str
    gallery: Gallery
    scoring: Scoring
    reader: ImageReader
    right: Bool[np.ndarray, " n"]
    chance: Float64[np.ndarray, " n"]
    names: tuple[str, ...] = ()
    """The classes' names, if classes were asked for."""


def answers_of(split: Any, config: HitConfig) -> Literal["classes", "captions", "none"]:
    """What can be asked of a split's images, by a look at a few records; as the settings say, if they do."""
    if config.answers != "auto":
        return config.answers
    looked = choose_places(split, LOOK)
    fields = (config.label_field,) if config.label_field else ("label", "class_index")
    if config.label_field or any(f in split.meta(p) for p in looked for f in fields):
        return "classes"
    return "captions" if any(split.captions(p) for p in looked) else "none"


def item_hits(model: Pretrained, split: Any, config: HitConfig, who: str) -> Hits:
    """Ask the right answer of every image of `split`. Raises EvalError where it does not hold what is asked for."""
    asked = answers_of(split, config)
    reader = ImageReader(split, model.model.config.image_format, config.batch_size)
    scoring = choose_scoring(model, config, who)
    places = places_to_score(split, config, scoring)
    if asked == "classes":
        return _classes(model, split, config, who, places, reader, scoring)
    if asked == "captions":
        places = [p for p in places if split.captions(p)]
        if len(places) < 2:
            raise EvalError(
                f"{who} must be given at least 2 images with captions; got {len(places)} in {split.name}. Choose a "
                "larger split, or answers=none."
            )
    gallery = _distinct(read_gallery(model, reader, places, who, scoring.by == "embeddings"))
    if asked == "captions":
        right, chance = _captions(model, split, gallery, reader, scoring)
    else:
        right, chance = np.zeros(len(gallery.places), bool), np.zeros(len(gallery.places))
    return Hits(asked, gallery, scoring, reader, right, chance)


def _classes(
    model: Pretrained,
    split: Any,
    config: HitConfig,
    who: str,
    places: list[int],
    reader: ImageReader,
    scoring: Scoring,
) -> Hits:
    folder = dataset_folder(config.data, split)
    _, labels = read_labels(split, places, config.label_field)
    classes = read_classes(config.classes, folder, list(labels.values()))
    templates, _ = read_templates(config.templates, folder)
    gallery = _distinct(read_gallery(model, reader, places, who, scoring.by == "embeddings"))
    truth = _truth(split, gallery, labels, classes)
    items: EmbeddedItems | SomeTexts
    if gallery.vectors is not None:
        items = EmbeddedItems(gallery.vectors, class_vectors(model, classes.names, templates))
    else:
        prompts = [fill(t, n) for t in templates for n in classes.names]
        known = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        scored = ScoredItems(model, reader, gallery.places, list(known), scoring)
        items = SomeTexts(scored, [known[prompt] for prompt in prompts])
    predicted = guess(items, classes.names, truth, None).predicted
    chance = np.full(len(truth), 1 / len(classes.names))
    return Hits("classes", gallery, scoring, reader, predicted == truth, chance, classes.names)


def _truth(split: Any, gallery: Gallery, labels: dict[int, Any], classes: Classes) -> Int64[np.ndarray, " n"]:
    return np.array([classes.index_of(labels[p], split.uid(p)) for p in gallery.places])


def _captions(
    model: Pretrained, split: Any, gallery: Gallery, reader: ImageReader, scoring: Scoring
) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Whether the best caption of each image is its own (or an equal one), and how likely that is by chance."""
    captions = [split.captions(p)[:1] for p in gallery.places]
    matches = Matches.of(gallery.hashes, captions)
    texts = [captions[i][0] for i in matches.owner[matches.first_text].tolist()]
    items: EmbeddedItems | ScoredItems
    if gallery.vectors is not None:
        items, chunk = EmbeddedItems(gallery.vectors, model.embed_text(texts)), 0
    else:
        items, chunk = ScoredItems(model, reader, gallery.places, texts, scoring), PAIRS_SIDE
    found = ranking.ranks(items.rows, items.pairs(matches), matches, chunk)
    return (found.i2t <= 1).numpy(), (matches.right_texts() / len(captions)).numpy()


def _distinct(gallery: Gallery) -> Gallery:
    """The first of images with equal bytes."""
    first = np.sort(np.unique(distinct(gallery.hashes), return_index=True)[1]).tolist()
    if len(first) == len(gallery.places):
        return gallery
    vectors = None if gallery.vectors is None else gallery.vectors[first]
    return Gallery([gallery.places[i] for i in first], [gallery.hashes[i] for i in first], vectors)
