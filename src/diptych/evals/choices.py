"""Which of some texts an image is given: its class among all (zero-shot), or its caption among those of a gallery.

One question for all evals that ask it again and again of altered images, so that their numbers are those of the
zero-shot eval and of image-to-text recall at 1 on the images as they are.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.core.image_format import ImageFormat
from diptych.data.image_reader import ImageBatch, ImageReader
from diptych.evals.class_guesses import class_vectors, guess
from diptych.evals.class_labels import FIELDS, ClassConfig, read_labels
from diptych.evals.eval import some
from diptych.evals.prompts import BARE, fill, read_classes, read_templates
from diptych.evals.ranking import Matches
from diptych.evals.scoring import (
    Change,
    EmbeddedItems,
    Gallery,
    ScoredItems,
    Scoring,
    SomeTexts,
    dataset_folder,
)
from diptych.models.pretrained import Pretrained

HELD = 256 << 20
"""Bytes of pixels that are kept, so that an image is decoded once however often it is looked at."""

Kind = Literal["labels", "captions"]


class ChoiceConfig(ClassConfig):
    """Base of the settings of evals that let a model choose a text for each image."""

    abstract: ClassVar[bool] = True
    max_items: int = Field(500, ge=0)
    choices: Literal["auto", "labels", "captions"] = "auto"
    """What is chosen from: "labels": the classes, as in the zero-shot eval; "captions": the first captions of all
    images that are looked at, as in retrieval at 1. "auto": labels where the records have them."""
    templates: str | tuple[str, ...] = ""
    """As in the zero-shot eval; empty, for a model without embeddings, which scores every prompt: the bare name."""
    most_scored: int = Field(32, ge=0)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records have neither labels nor captions."""
        if reason := super().unsuited(model, data):
            return reason
        labels = has_labels(data, some(data), self.label_field)
        captions = sum(bool(data.captions(p)) for p in some(data)) > 1
        has = {"auto": labels or captions, "labels": labels, "captions": captions}[self.choices]
        return (
            "" if has else f"its records have no {'labels and no captions' if self.choices == 'auto' else self.choices}"
        )


class Choices(NamedTuple):
    """What n images have to be told apart by.

    kind     where the texts are from
    names    t texts as they are shown
    templates, source  the prompts that each is put into, and where they are from
    right    which texts are right for each image
    chance   the share of images that blind guessing gets right
    """

    kind: Kind
    names: tuple[str, ...]
    templates: tuple[str, ...]
    source: str
    right: tuple[frozenset[int], ...]
    chance: float

    def hits(self, chosen: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether each image was given a right text."""
        return np.array([text in right for text, right in zip(chosen.tolist(), self.right, strict=True)])

    def mask(self, images: Sequence[int]) -> Bool[Tensor, "b t"]:
        """Which texts are right for some of the images."""
        found = torch.zeros(len(images), len(self.names), dtype=torch.bool)
        for row, image in enumerate(images):
            found[row, sorted(self.right[image])] = True
        return found

    def settings(self) -> dict[str, Any]:
        """What a result says of them."""
        return {
            "choices": self.kind,
            "texts": len(self.names),
            "templates_from": self.source,
            "template_list": list(self.templates),
        }


def kind_of(config: ChoiceConfig, split: Any, places: Sequence[int]) -> Kind:
    """Whether images are told apart by labels or by captions."""
    if config.choices != "auto":
        return config.choices
    spread = [places[i] for i in some(places)]
    return "labels" if has_labels(split, spread, config.label_field) else "captions"


def read_choices(config: ChoiceConfig, kind: Kind, split: Any, gallery: Gallery, embeds: bool) -> Choices:
    """The texts for the images of a gallery. Raises EvalError where there are fewer than two."""
    if kind == "labels":
        return _of_labels(config, split, gallery, embeds)
    captions = [tuple(split.captions(p))[:1] for p in gallery.places]
    without = sum(not c for c in captions)
    if without:
        raise EvalError(
            f"every image must have a caption to be told apart by; got {without} of {len(captions)} without. "
            "Pack with captions, or choose by labels (choices=labels)."
        )
    matches = Matches.of(gallery.hashes, captions)
    if len(matches.first_text) < 2:
        raise EvalError(
            f"images must have at least 2 different captions; got {len(matches.first_text)} of {len(captions)} images. "
            "Raise max_items, or choose another split."
        )
    texts = [c for said in captions for c in said]
    of_image: dict[int, set[int]] = {}
    for image, text in matches.pairs.tolist():
        of_image.setdefault(image, set()).add(text)
    right = tuple(frozenset(of_image[i]) for i in matches.image_of.tolist())
    names = tuple(texts[i] for i in matches.first_text.tolist())
    chance = float(np.mean([len(r) / len(names) for r in right]))
    return Choices("captions", names, (BARE,), "captions as they are", right, chance)


def choosable(kind: Kind, split: Any, places: Sequence[int]) -> list[int]:
    """Those of the places that have what they are to be told apart by: of captions, one."""
    return list(places) if kind == "labels" else [p for p in places if split.captions(p)]


class Chooser:
    """A model that gives each image one of the texts."""

    def __init__(self, model: Pretrained, choices: Choices, scoring: Scoring) -> None:
        self.model, self.choices, self.scoring = model, choices, scoring
        embeds = scoring.by == "embeddings"
        self.vectors = class_vectors(model, choices.names, choices.templates) if embeds else None

    def choose(
        self, reader: ImageReader, places: Sequence[int], vectors: Float[Tensor, "n e"] | None
    ) -> Int64[np.ndarray, " n"]:
        """The best text of each image: by its vector, or by the pixels that `reader` has for its place."""
        names = self.choices.names
        if self.vectors is not None:
            assert vectors is not None
            items: EmbeddedItems | SomeTexts = EmbeddedItems(vectors, self.vectors)
        else:
            prompts = [fill(t, n) for t in self.choices.templates for n in names]
            scored = ScoredItems(self.model, reader, places, prompts, self.scoring)
            items = SomeTexts(scored, range(len(prompts)))
        return guess(items, names, np.zeros(len(places), np.int64), None).predicted


class HeldReader(ImageReader):
    """An ImageReader that decodes each image once, as long as all pixels together are no more than HELD."""

    def __init__(self, split: Any, format: ImageFormat, batch_size: int) -> None:
        super().__init__(split, format, batch_size)
        self._held: dict[int, tuple[bytes, Tensor]] = {}
        self._bytes = 0

    def batches(self, places: Sequence[int]) -> Iterator[ImageBatch]:
        """As `ImageReader.batches`."""
        if not all(p in self._held or p in self.broken for p in places):
            for batch in super().batches(places):
                self._hold(batch)
                yield batch
            return
        good = [p for p in places if p in self._held]
        for start in range(0, len(good), self.batch_size):
            part = good[start : start + self.batch_size]
            hashes, images = zip(*(self._held[p] for p in part), strict=True)
            yield ImageBatch(part, list(hashes), torch.stack(images))

    def _hold(self, batch: ImageBatch) -> None:
        if self._bytes + batch.images.numel() <= HELD:
            self._bytes += batch.images.numel()
            self._held |= {p: (h, i) for p, h, i in zip(batch.places, batch.hashes, batch.images, strict=True)}


class ChangedReader(ImageReader):
    """What another reader reads, altered."""

    def __init__(self, reader: ImageReader, change: Change) -> None:
        super().__init__(reader.split, reader.format, reader.batch_size)
        self.reader, self.change = reader, change

    def batches(self, places: Sequence[int]) -> Iterator[ImageBatch]:
        """As `ImageReader.batches`."""
        for batch in self.reader.batches(places):
            yield batch._replace(images=self.change(batch.images, batch.places))


def has_labels(split: Any, places: Sequence[int], field: str) -> bool:
    """Whether all records at those places say their label: in `field`, else in one of the usual ones."""
    fields = (field,) if field else FIELDS
    meta = [split.meta(p) for p in places]
    return bool(meta) and any(all(m.get(f) is not None for m in meta) for f in fields)


def _of_labels(config: ChoiceConfig, split: Any, gallery: Gallery, embeds: bool) -> Choices:
    folder = dataset_folder(config.data, split)
    _, labels = read_labels(split, gallery.places, config.label_field)
    classes = read_classes(config.classes, folder, list(labels.values()))
    if config.templates or embeds:
        templates, source = read_templates(config.templates, folder)
    else:
        templates, source = (BARE,), "the bare name"
    truth = [classes.index_of(labels[p], split.uid(p)) for p in gallery.places]
    right = tuple(frozenset((t,)) for t in truth)
    return Choices("labels", classes.names, templates, source, right, 1 / len(classes.names))
