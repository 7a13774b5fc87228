"""Has the model seen the test? Held-out images with a near copy in the training data, and what they do to a score."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from pydantic import Field
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.core.image_format import ImageFormat
from diptych.data.canonicalise import canonicalise_siglip
from diptych.data.decode import decode_image, encode_jpeg, resize_image, scale_image
from diptych.data.image_reader import ImageReader
from diptych.data.near_copies import Copies, Sketches, find_copies, nearest_vectors, read_sketches
from diptych.evals.eval import Estimate, Eval, EvalResult, ItemTable
from diptych.evals.groups import share_difference
from diptych.evals.item_hits import HitConfig, Hits, asked_of, item_hits
from diptych.evals.items import item_table
from diptych.evals.open_data import open_data
from diptych.evals.scoring import (
    Change,
    choose_places,
    dataset_folder,
    describe_broken,
    distinct,
    read_gallery,
    thumbnail,
)
from diptych.evals.statistics import share_estimate
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Histogram, Interval, Intervals, Picture, Pictures

CALIBRATED_ON = 200
"""Held-out images that are saved anew to see how near a copy's vector lies."""

TAIL = 0.05
"""A vector counts as a copy's if it is nearer than this share of copies are, and than all but this share of training
images have another training image."""

NEIGHBOURS_OF = 1000
"""Training images, spread over them, of which the nearest other one is looked for."""

SHOWN = 12
"""Pairs of images that a report shows, of each kind."""


class MemorisationConfig(HitConfig):
    """Settings of the memorisation eval."""

    full: ClassVar[Mapping[str, Any] | None] = {"max_items": 2000, "most_scored": 200}
    reference: str = ""
    """The data that the model was trained on, packed or as it lies; empty: the dataset that the split is of."""
    reference_split: str = "train"
    """Which split of it."""
    most_bits: int = Field(12, ge=0, le=64)
    """Images whose perceptual hashes differ in at most so many of 64 bits are compared."""
    tolerance: float = Field(0.2, gt=0, lt=1)
    """How far the miniatures of a near copy may differ, as a share of the picture's contrast."""
    vectors: bool = True
    """Also find copies by the model's own vectors, where it embeds: all training images are embedded for that."""
    pictures: bool = True
    """Show the pairs that were found."""

    def build(self) -> "Memorisation":
        """The eval."""
        return Memorisation(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where there is no training split to compare with, or nothing to ask of the images."""
        if reason := super().unsuited(model, data):
            return reason
        if str(data.name) == self.reference_split and not self.reference:
            return "it is the training split itself"
        spec = self.reference or dataset_folder(self.data, data)
        if spec is None or self.reference_split not in open_data(spec).splits:
            return f"no split {self.reference_split} beside it (name the training data by reference)"
        return "its records have neither captions nor labels" if asked_of(data, self) == "none" else ""


class Memorisation(Eval):
    """The share of held-out images (distinct ones) with a near copy in training, of captions seen there, and accuracy
    on those with and without.

    A near copy has the same bytes or is the same picture saved anew (`near_copies`). Accuracy: whether the class or
    the caption comes first (`item_hits`). That copied images fare better need not be memory: what is common is copied
    and easy. The headline is the accuracy on what has no near copy. Definitions: docs/reference/evals-bias-geometry.md.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "accuracy_new"

    def __init__(self, config: MemorisationConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data` against the training split."""
        config = self.config
        train, name = self._reference(data)
        held, reader = read_sketches(data, choose_places(data, config.max_items), config.batch_size)
        held = _distinct(held)
        known, train_reader = read_sketches(train, range(len(train)), config.batch_size)
        for what, sketches in (("held-out", held), ("training", known)):
            if not sketches.places:
                raise EvalError(f"memorisation must be given at least one readable {what} image; got none. Look at it.")
        copies = find_copies(held, known, config.most_bits, config.tolerance)
        vectors = self._by_vector(model, data, train, held, known)
        seen = _seen_captions(data, held.places, train)
        hits = item_hits(model, data, config, "memorisation") if asked_of(data, config) != "none" else None
        found = _Found(config, data, train, held, known, copies, vectors, seen, hits)
        settings = {
            "reference": name,
            "reference_images": len(known.places),
            "distinct_images": len(held.places),
            "choices": hits.asked if hits else "none",
            "vector_copy_cosine": None if vectors is None else vectors.limit,
            "saved_anew_cosine": None if vectors is None else vectors.saved,
            "broken_images": describe_broken(reader),
            "broken_reference_images": describe_broken(train_reader),
        }
        return config.result(
            model,
            data,
            metrics=found.metrics,
            settings=settings,
            items=found.items() if artifacts else {},
            figures=found.figures() if artifacts else (),
        )

    def _reference(self, split: Any) -> tuple[Any, str]:
        config = self.config
        spec = config.reference or dataset_folder(config.data, split)
        if spec is None:
            raise EvalError(
                f"memorisation must know the training data; got the split {split.name} without a folder. "
                "Name it by reference=DIR."
            )
        if str(split.name) == config.reference_split and not config.reference:
            raise EvalError(
                f"memorisation must compare a held-out split; got {split.name}, the training split itself. "
                "Choose another by --split."
            )
        return open_data(spec).split(config.reference_split), str(spec)

    def _by_vector(
        self, model: Pretrained, split: Any, train: Any, held: Sketches, known: Sketches
    ) -> "VectorCopies | None":
        """The nearest training image by the model's vectors, and how near a picture that is saved anew would lie."""
        if not self.config.vectors or "embed_image" not in model.capabilities:
            return None
        sample = held.places[:: max(1, len(held.places) // CALIBRATED_ON)]
        mine, theirs = self._embedded(model, split, held.places), self._embedded(model, train, known.places)
        again = self._embedded(model, split, sample, saved=True)
        saved = float(np.quantile((again * self._embedded(model, split, sample)).sum(1).numpy(), TAIL))
        own = torch.arange(0, len(theirs), max(1, len(theirs) // NEIGHBOURS_OF))
        apart = nearest_vectors(theirs[own], theirs, own)[0] if len(theirs) > 1 else np.full(1, -1.0)
        limit = max(saved, float(np.quantile(apart, 1 - TAIL)))
        return VectorCopies(*nearest_vectors(mine, theirs), saved, limit, float((apart >= limit).mean()))

    def _embedded(self, model: Pretrained, split: Any, places: list[int], saved: bool = False) -> Float[Tensor, "n e"]:
        format = model.model.config.image_format
        change = ("saved anew", saved_anew(split, format)) if saved else None
        reader = ImageReader(split, format, self.config.batch_size)
        vectors = read_gallery(model, reader, places, "memorisation", True, change).vectors
        assert vectors is not None
        return vectors


class VectorCopies(NamedTuple):
    """The cosine and the row of each held-out image's nearest training image by vector; the cosine that all but TAIL of
    copies reach, that from which on it counts, and the share of training images with another one so near."""

    cosine: Float64[np.ndarray, " n"]
    nearest: Int64[np.ndarray, " n"]
    saved: float
    limit: float
    in_training: float


def saved_anew(split: Any, format: ImageFormat) -> Change:
    """Images as a copy of them would come: at three quarters of their size, as a JPEG of quality 75."""

    def change(images: UInt8[Tensor, "b 3 s s"], places: Sequence[int]) -> UInt8[Tensor, "b 3 s s"]:
        again = []
        for place in places:
            image = decode_image(split.image_bytes(place))
            height, width = (max(1, side * 3 // 4) for side in image.shape[1:])
            small = encode_jpeg(scale_image(image, height, width, "bilinear"), quality=75)
            again.append(resize_image(decode_image(small), format))
        return torch.stack(again)

    return change


class _Found:
    """What was found of the held-out images, in the order of their sketches."""

    def __init__(
        self,
        config: MemorisationConfig,
        split: Any,
        train: Any,
        held: Sketches,
        known: Sketches,
        copies: Copies,
        vectors: VectorCopies | None,
        seen: Bool[np.ndarray, " n"] | None,
        hits: Hits | None,
    ) -> None:
        self.config, self.split, self.train, self.held, self.known = config, split, train, held, known
        self.copies, self.vectors, self.seen, self.hits = copies, vectors, seen, hits
        self.shares = {"near_copy_share": copies.near, "exact_copy_share": copies.exact}
        if vectors is not None:
            self.shares["vector_copy_share"] = vectors.cosine >= vectors.limit
        if seen is not None:
            self.shares["seen_caption_share"] = seen
        row = {place: i for i, place in enumerate(held.places)}
        self.asked = [i for i, p in enumerate(hits.gallery.places) if p in row] if hits else []
        self.row = (
            np.array([row[hits.gallery.places[i]] for i in self.asked], np.int64) if hits else np.zeros(0, np.int64)
        )
        self.right = hits.right[self.asked] if hits else np.zeros(0, bool)

    @cached_property
    def metrics(self) -> dict[str, Estimate]:
        """The shares; and of what was asked, the accuracy with and without."""
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        metrics = {}
        for name, share in self.shares.items():
            chance = self.vectors.in_training if self.vectors and name == "vector_copy_share" else None
            metrics[name] = share_estimate(share, None, chance, **how).replace(higher_is_better=False)
        if self.hits is None:
            return metrics
        everything = np.ones(len(self.right), bool)
        metrics["accuracy"] = self._accuracy(everything)
        for name, share, (old, new) in self._splits():
            there = share[self.row]
            if not there.all():
                metrics[f"accuracy_{new}"] = self._accuracy(~there)
            if there.any():
                metrics[f"accuracy_{old}"] = self._accuracy(there)
            if there.any() and not there.all():
                hits, n = int(self.right[there].sum()), int(there.sum())
                others = int(self.right[~there].sum()), int((~there).sum())
                metrics[f"{name}_advantage"] = share_difference(hits, n, *others)
        return metrics

    def items(self) -> dict[str, ItemTable]:
        """What is near and seen of each image, and whether it got its answer."""
        uids = [self.split.uid(p) for p in self.held.places]
        tables = {"images": item_table(uids, self.shares)}
        if self.hits is not None:
            mine = [uids[i] for i in self.row.tolist()]
            tables["answers"] = item_table(mine, {"accuracy": self.right})
            new = np.flatnonzero(~self.copies.near[self.row])
            if len(new):
                tables["new"] = item_table([mine[i] for i in new.tolist()], {"accuracy_new": self.right[new]})
        return tables

    def figures(self) -> tuple[Figure, ...]:
        """Shares, accuracy with and without, and the pairs."""
        metrics = self.metrics
        figures: list[Figure] = [
            Intervals(
                title="Found in the training data",
                words="Held-out images, distinct ones: with a near copy, the very bytes, a vector as near as a copy's, "
                "or a caption that stands there word for word.",
                rows=tuple(_row(name, metrics[name]) for name in self.shares),
            )
        ]
        if accuracies := [name for name in metrics if name.startswith("accuracy")]:
            words = "Copied images may also be easier ones: a difference alone does not prove memory."
            rows = tuple(_row(name, metrics[name]) for name in accuracies)
            figures.append(Intervals(title="Accuracy with and without", words=words, rows=rows))
        if self.vectors is not None:
            figures.append(self._cosines(self.vectors))
        if self.config.pictures:
            figures += self._pictures()
        return tuple(figures)

    def _splits(self) -> list[tuple[str, Bool[np.ndarray, " n"], tuple[str, str]]]:
        splits = [("copy", self.copies.near, ("copied", "new"))]
        if self.seen is not None:
            splits.append(("seen_caption", self.seen, ("seen_caption", "new_caption")))
        return splits

    def _accuracy(self, which: Bool[np.ndarray, " a"]) -> Estimate:
        assert self.hits is not None
        chance = float(self.hits.chance[self.asked][which].mean())
        return share_estimate(self.right[which], None, chance, self.config.bootstrap, self.config.seed)

    def _cosines(self, vectors: VectorCopies) -> Figure:
        low = float(np.floor(vectors.cosine.min() * 50) / 50)
        starts = np.arange(min(low, 0.98), 1.0, 0.02)
        counts, _ = np.histogram(vectors.cosine, [*starts, 1.01])
        return Histogram(
            title="Cosine to the nearest training image",
            words=f"Of pictures saved anew, {1 - TAIL:.0%} lie above {vectors.saved:.3f}. From {vectors.limit:.3f} on "
            f"one counts as a copy by vector; of training images, {vectors.in_training:.1%} have another one so near.",
            starts=tuple(starts.tolist()),
            counts=tuple(float(c) for c in counts),
            x_label="cosine",
        )

    def _pictures(self) -> list[Figure]:
        copies = self.copies
        near = np.flatnonzero(copies.near)
        near = near[np.argsort(-copies.apart[near], kind="stable")][:SHOWN]  # the least alike first: are they copies?
        sheets: list[Figure] = []
        if len(near):
            pairs = [(i, int(copies.nearest[i]), f"{copies.apart[i]:.1f} grey levels apart") for i in near.tolist()]
            words = "Each held-out image with its training image; those that differ most come first."
            sheets.append(self._sheet("Near copies", words, pairs))
        if self.vectors is not None:
            others = np.flatnonzero(~copies.near & (self.vectors.cosine >= self.vectors.limit))
            others = others[np.argsort(-self.vectors.cosine[others], kind="stable")][:SHOWN]
            pairs = [(i, int(self.vectors.nearest[i]), f"cosine {self.vectors.cosine[i]:.4f}") for i in others.tolist()]
            if pairs:
                words = "Not near copies by their pixels, but as near as one to the model."
                sheets.append(self._sheet("Copies by vector only", words, pairs))
        return sheets

    def _sheet(self, title: str, words: str, pairs: list[tuple[int, int, str]]) -> Figure:
        pictures = []
        for i, j, detail in pairs:
            for split, place, which in (
                (self.split, self.held.places[i], "held out"),
                (self.train, self.known.places[j], "in training"),
            ):
                caption = next(iter(split.captions(place)), "")
                pictures.append(Picture(image=thumbnail(split, place), caption=f"{which}: {caption}", detail=detail))
        return Pictures(title=title, words=words, pictures=tuple(pictures))


def _distinct(held: Sketches) -> Sketches:
    """The first of images with equal bytes."""
    first = np.sort(np.unique(distinct(held.digests), return_index=True)[1]).tolist() if held.places else []
    places, digests = [held.places[i] for i in first], [held.digests[i] for i in first]
    return Sketches(places, digests, held.bits[first], held.miniatures[first])


def _seen_captions(split: Any, places: Sequence[int], train: Any) -> Bool[np.ndarray, " n"] | None:
    """Whether each image's first caption stands in training, but for case, punctuation and spaces; None: no captions.

    Training captions are kept as hashes of 64 bits, 8 bytes each.
    """
    mine = [split.captions(p)[:1] for p in places]
    if not all(mine):
        return None
    wanted = np.array([_text_hash(texts[0]) for texts in mine], np.uint64)
    said = np.fromiter((_text_hash(t) for i in range(len(train)) for t in train.captions(i)), np.uint64)
    return np.isin(wanted, said)


def _text_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(canonicalise_siglip(text).encode(), digest_size=8).digest(), "little")


def _row(name: str, e: Estimate) -> Interval:
    return Interval(name=name.replace("_", " "), value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n)
