"""Frozen features of labelled images, on which probes learn: of the split that is judged, and of one to learn from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn

from diptych.core.errors import DiptychError, EvalError
from diptych.core.seeds import permute
from diptych.data.image_reader import ImageReader
from diptych.evals.class_labels import FIELDS, label_classes, read_labels
from diptych.evals.eval import EvalConfig, some
from diptych.evals.open_data import open_data
from diptych.evals.prompts import Classes
from diptych.evals.scoring import choose_places, dataset_folder, describe_broken, distinct, read_gallery
from diptych.models.capabilities import capabilities_of
from diptych.models.pretrained import Pretrained

Features = Literal["auto", "embedding", "projected", "pooled", "tokens"]


class FeaturesConfig(EvalConfig):
    """Base of the settings of evals that learn on frozen features of labelled images."""

    abstract: ClassVar[bool] = True
    train_split: str = "train"
    """The split of the same data to learn from."""
    classes: str | tuple[str, ...] = ""
    """As in zero_shot; where labels are numbers without names, their numbers are the names."""
    label_field: str = ""
    """Which value of a record's meta is its class; empty: label or class_index."""
    features: Features = "auto"
    """"embedding": the unit vectors of embed_image, as everything else here sees them. "projected": the same before
    they are made unit (what the CLIP authors' README probes); "pooled": before the projection too (what their paper
    probes, A.3). "tokens": the mean of the vectors that stand for an image in the model (`image_features`): what one
    that writes reads, hidden states of one that paints. "auto": embedding, else tokens."""
    duplicates: Literal["removed", "kept"] = "removed"
    """Images to learn from whose bytes are also among the judged: left out and counted, or kept, as others do."""
    max_train: int = Field(0, ge=0)
    """Learn from at most so many images, drawn at random, always the same ones; 0: from all."""
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(12, ge=0)
    """How many of the most confident mistakes go into the report."""

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records do not say their class, or there is no other split to learn from."""
        reason = super().unsuited(model, data) or _no_features(model, self.features)
        if reason:
            return reason
        fields = (self.label_field,) if self.label_field else FIELDS
        labels = [[m[f] for f in fields if m.get(f) is not None] for m in (data.meta(p) for p in some(data))]
        if not all(labels):
            return f"its records have no {fields[0]} in their meta"
        if any(isinstance(x, (list, tuple)) for found in labels for x in found):
            return "its images have several labels each"
        try:
            learned_from(self, data, "a probe")
        except DiptychError:
            return f"there is no split {self.train_split!r} to learn from"
        return ""


class Labelled(NamedTuple):
    """The readable images of a split with their features and classes. `hashes`: of their bytes."""

    split: Any
    places: list[int]
    hashes: list[bytes]
    features: Float[Tensor, "n d"]
    truth: Int64[np.ndarray, " n"]

    @property
    def clusters(self) -> Int64[np.ndarray, " n"]:
        """Which images are equal, and so one independent item."""
        return distinct(self.hashes)

    def some(self, keep: Bool[np.ndarray, " n"] | Int64[np.ndarray, " m"]) -> "Labelled":
        """Some of them, by a mask or by their numbers."""
        chosen = np.flatnonzero(keep) if keep.dtype == bool else keep
        places, hashes = [self.places[i] for i in chosen], [self.hashes[i] for i in chosen]
        return Labelled(self.split, places, hashes, self.features[torch.from_numpy(chosen)], self.truth[chosen])


class ProbeData(NamedTuple):
    """What a probe learns from and what it is judged on. `about` says of both what a reader must know (JSON values);
    `read` reads another of the data's `splits` in the same way as the one to learn from."""

    classes: Classes
    train: Labelled
    judged: Labelled
    about: dict[str, Any]
    splits: tuple[str, ...]
    read: Callable[[str], Labelled]


def read_probe_data(config: FeaturesConfig, model: Pretrained, data: Any, who: str) -> ProbeData:
    """The features and classes of the judged split `data` and of the split to learn from."""
    folder, source = dataset_folder(config.data, data), learned_from(config, data, who)
    features = _which(model, config.features, who)
    learn, judge = source.split(config.train_split), data
    train_places, judged_places = choose_places(learn, config.max_train), choose_places(judge, config.max_items)
    field, labels = read_labels(judge, judged_places, config.label_field)
    _, learned = read_labels(learn, train_places, field)
    classes = label_classes(config.classes, folder, [*learned.values(), *labels.values()])

    def read(split: Any, places: Sequence[int]) -> tuple[Labelled, dict[str, Any]]:
        reader = ImageReader(split, model.model.config.image_format, config.batch_size)
        kept, hashes, rows = _read(model, reader, places, features, who)
        _, found = read_labels(split, kept, field)
        truth = np.array([classes.index_of(found[p], split.uid(p)) for p in kept], dtype=np.int64)
        return Labelled(split, kept, hashes, rows, truth), describe_broken(reader)

    judged, broken = read(judge, judged_places)
    seen = frozenset(judged.hashes)

    def unseen(found: Labelled) -> Labelled:
        return found.some(np.array([h not in seen for h in found.hashes])) if config.duplicates == "removed" else found

    train, broken_train = read(learn, train_places)
    shared = sum(h in seen for h in train.hashes)
    train = unseen(train)
    if len(np.unique(train.truth)) < 2:
        raise EvalError(
            f"{who} must learn from images of at least 2 classes; got {len(train.truth)} of "
            f"{len(np.unique(train.truth))} in {config.train_split}, after {shared} were left out that are "
            "judged too. Name another split with train_split, or take duplicates=kept."
        )
    about = {
        "classes_from": classes.source,
        "class_names": list(classes.names),
        "label_field": field,
        "features": features,
        "feature_size": train.features.shape[1],
        "images": len(judged.truth),
        "train_images": len(train.truth),
        "train_images_also_judged": shared,
        "broken_images": broken,
        "broken_train_images": broken_train,
    }

    def another(name: str) -> Labelled:
        split = source.split(name)
        return unseen(read(split, range(len(split)))[0])

    return ProbeData(classes, train, judged, about, tuple(source.splits), another)


def learned_from(config: FeaturesConfig, data: Any, who: str) -> Any:
    """The data whose train split is learned from, opened. Raises EvalError where it is that which is judged."""
    folder = dataset_folder(config.data, data)
    if folder is None:
        raise EvalError(
            f"{who} must know the data whose split {config.train_split!r} it is to learn from; got a split that "
            "belongs to none. Name it: data=DIR."
        )
    source = open_data(config.data or Path(folder))
    source.split(config.train_split)  # an error that says which there are, before anything is read
    if data.name == config.train_split:
        raise EvalError(
            f"{who} must be judged on other images than it learns from; got the split {data.name!r} for both. "
            "Name one of them: split=test or train_split=train."
        )
    return source


def take_features(model: Pretrained, features: Features) -> Callable[[UInt8[Tensor, "b 3 s s"]], Tensor]:
    """The function from pixels to features of one kind, other than the embeddings that `read_gallery` remembers."""
    network: Any = model.model
    if features == "tokens":
        return lambda images: network.image_features(images).float().mean(1)
    module, before = _projection(network, features)
    assert module is not None

    def take(images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        if before:
            handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        else:
            handle = module.register_forward_hook(lambda _, given, out: seen.append(out))
        try:
            network.embed_image(images)
        finally:
            handle.remove()
        return seen[0].float()

    return take


def _projection(network: Any, features: Features) -> tuple[nn.Module | None, bool]:
    """The module at which features are read off, and whether on its way in: None where there is no such place."""
    tower = getattr(network, "image_tower", None)
    own = getattr(network, "image_projection", None)
    if isinstance(own, nn.Module):
        return own, features == "pooled"
    if not isinstance(tower, nn.Module) or (features == "pooled" and not hasattr(tower, "projection")):
        return None, False
    projection = getattr(tower, "projection", None)
    if isinstance(projection, nn.Module):
        return projection, features == "pooled"
    return tower, False  # nothing is projected, or within the pooling: the tower gives what is made unit


def _no_features(model: Pretrained, features: Features) -> str:
    """Why a model has no such features; "" if it has."""
    has = capabilities_of(model.model)
    if features == "tokens" or (features == "auto" and "embed_image" not in has):
        has_tokens = callable(getattr(model.model, "image_features", None))
        return "" if has_tokens else "the model neither embeds images nor reads their tokens"
    if "embed_image" not in has:
        return "the model has no embed_image"
    if features in ("projected", "pooled") and _projection(model.model, features)[0] is None:
        return f"the model's image tower has no place at which features are {features}"
    return ""


def _which(model: Pretrained, features: Features, who: str) -> Features:
    reason = _no_features(model, features)
    if reason:
        raise EvalError(
            f"{who} must be given features that the model has; got features={features}: {reason}. "
            "Take features=auto, or another model."
        )
    if features != "auto":
        return features
    return "embedding" if "embed_image" in capabilities_of(model.model) else "tokens"


@torch.inference_mode()
def _read(
    model: Pretrained, reader: ImageReader, places: Sequence[int], features: Features, who: str
) -> tuple[list[int], list[bytes], Float[Tensor, "n d"]]:
    if features == "embedding":
        gallery = read_gallery(model, reader, places, who, True)
        assert gallery.vectors is not None
        return gallery.places, gallery.hashes, _finite(gallery.vectors, who)
    kept: list[int] = []
    hashes: list[bytes] = []
    rows: list[Tensor] = []
    take = take_features(model, features)
    for batch in reader.batches(places):
        kept += batch.places
        hashes += batch.hashes
        rows.append(take(batch.images.to(model.device)).cpu())
    if not kept:
        raise EvalError(
            f"{who} must be given at least one readable image; got {len(places)} to read and {len(reader.broken)} "
            "broken. Look at the split with: diptych inspect"
        )
    return kept, hashes, _finite(torch.cat(rows), who)


def _finite(features: Tensor, who: str) -> Tensor:
    bad = int((~features.isfinite()).any(1).sum())
    if bad:
        raise EvalError(
            f"{who} must be given finite features; got {bad} of {len(features)} with NaN or infinity. "
            "The weights or the precision are broken: load an earlier checkpoint, or evaluate in float32."
        )
    return features


def held_out(size: int, share: float, *key: int | str) -> Bool[np.ndarray, " n"]:
    """A mask of `share` of `size` places, at least one and not all, drawn by a keyed permutation."""
    count = min(max(1, round(share * size)), size - 1)
    mask = np.zeros(size, dtype=bool)
    mask[[permute(i, size, *key) for i in range(count)]] = True
    return mask
