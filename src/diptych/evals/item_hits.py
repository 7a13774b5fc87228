"""Does each image get its right answer first? For evals that ask how right answers are spread: over groups of people,
over images that were seen before and others.

It is the choice of a text as in `choices.py`, over distinct images, and with "none" where nothing is asked.
"""

from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from pydantic import Field

from diptych.data.image_reader import ImageReader
from diptych.evals.choices import ChoiceConfig, Chooser, Kind, choosable, has_labels, read_choices
from diptych.evals.scoring import (
    Gallery,
    PairScoringConfig,
    Scoring,
    choose_places,
    choose_scoring,
    distinct,
    places_to_score,
    read_gallery,
)
from diptych.models.pretrained import Pretrained

LOOK = 64
"""Records that are looked at to know what a split says of its images."""


class HitConfig(ChoiceConfig):
    """Base of the settings of evals that ask whether each image gets its right answer."""

    abstract: ClassVar[bool] = True
    max_items: int = Field(0, ge=0)
    most_scored: int = Field(0, ge=0)
    choices: Literal["auto", "labels", "captions", "none"] = "auto"  # type: ignore[assignment]  # one more than there
    """What must come first: the image's label (its class), or its first caption among those of all images; "none": no
    answers are asked for. "auto": labels where the records have them, else captions, else none."""

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Where the model neither embeds nor scores: without labels and captions there is something to say too."""
        return PairScoringConfig.unsuited(self, model, data)


class Hits(NamedTuple):
    """By what images were told apart, which they are, which of them got their right answer first (n,), and with what
    chance each would by guessing (n,). Images with equal bytes are one."""

    asked: Kind | Literal["none"]
    gallery: Gallery
    scoring: Scoring
    reader: ImageReader
    right: Bool[np.ndarray, " n"]
    chance: Float64[np.ndarray, " n"]
    names: tuple[str, ...] = ()
    """The labels' names, if labels were asked for."""


def asked_of(split: Any, config: HitConfig) -> Kind | Literal["none"]:
    """What can be asked of a split's images, by a look at a few records; as the settings say, if they do."""
    if config.choices != "auto":
        return config.choices
    looked = choose_places(split, LOOK)
    if config.label_field or has_labels(split, looked, config.label_field):
        return "labels"
    return "captions" if any(split.captions(p) for p in looked) else "none"


def item_hits(model: Pretrained, split: Any, config: HitConfig, who: str) -> Hits:
    """Ask the right answer of every image of `split`. Raises EvalError where it does not hold what is asked for."""
    asked = asked_of(split, config)
    reader = ImageReader(split, model.model.config.image_format, config.batch_size)
    scoring = choose_scoring(model, config, who)
    embeds = scoring.by == "embeddings"
    places = places_to_score(split, config, scoring)
    places = places if asked == "none" else choosable(asked, split, places)
    gallery = _distinct(read_gallery(model, reader, places, who, embeds))
    if asked == "none":
        count = len(gallery.places)
        return Hits(asked, gallery, scoring, reader, np.zeros(count, bool), np.zeros(count))
    choices = read_choices(config, asked, split, gallery, embeds)
    chosen = Chooser(model, choices, scoring).choose(reader, gallery.places, gallery.vectors)
    chance = np.array([len(right) / len(choices.names) for right in choices.right])
    names = choices.names if asked == "labels" else ()
    return Hits(asked, gallery, scoring, reader, choices.hits(chosen), chance, names)


def _distinct(gallery: Gallery) -> Gallery:
    """The first of images with equal bytes."""
    first = np.sort(np.unique(distinct(gallery.hashes), return_index=True)[1]).tolist()
    if len(first) == len(gallery.places):
        return gallery
    vectors = None if gallery.vectors is None else gallery.vectors[first]
    return Gallery([gallery.places[i] for i in first], [gallery.hashes[i] for i in first], vectors)
