"""How an eval reads a split and scores it with whatever the model can do: by embeddings, else pair by pair.

`EmbeddedItems` and `ScoredItems` answer the same questions (rows, pairs, columns), so that an eval is written once.
"""

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.core.seeds import permute
from diptych.data.decode import decode_image, encode_jpeg, resize_long_side
from diptych.data.image_reader import ImageReader
from diptych.evals.ranking import Matches, pair_products
from diptych.models.capabilities import require
from diptych.models.pretrained import Pretrained

PAIRS_SIDE = 32
"""A model without embeddings scores blocks of so many images and texts at once."""


@runtime_checkable
class Items(Protocol):
    """Distinct images against texts, scored on demand."""

    def rows(self, start: int, stop: int) -> Float[Tensor, "c t"]:
        """Scores of images start..stop against all texts."""

    def pairs(self, matches: Matches) -> Float[Tensor, " p"]:
        """Scores of the matching pairs."""

    def columns(self, texts: Sequence[int]) -> Float[Tensor, "i q"]:
        """Scores of all images against some of the texts."""


class EmbeddedItems:
    """Scores are inner products of unit vectors."""

    def __init__(self, images: Float[Tensor, "i e"], texts: Float[Tensor, "t e"]) -> None:
        _check("image", images)
        _check("text", texts)
        self.images, self.texts = images, texts

    def rows(self, start: int, stop: int) -> Float[Tensor, "c t"]:
        """Scores of images start..stop against all texts."""
        return self.images[start:stop] @ self.texts.T

    def pairs(self, matches: Matches) -> Float[Tensor, " p"]:
        """Scores of the matching pairs."""
        return pair_products(self.images, self.texts, matches)

    def columns(self, texts: Sequence[int]) -> Float[Tensor, "i q"]:
        """Scores of all images against some of the texts."""
        return self.images @ self.texts[list(texts)].T


class ScoredItems:
    """Scores come from the model's `score`, a block at a time; images are decoded anew for each pass over them."""

    def __init__(self, model: Pretrained, reader: ImageReader, places: Sequence[int], texts: Sequence[str]) -> None:
        self.model, self.reader, self.places, self.texts = model, reader, list(places), list(texts)

    def rows(self, start: int, stop: int) -> Float[Tensor, "c t"]:
        """Scores of images start..stop against all texts."""
        return self._block(range(start, stop), range(len(self.texts)))

    def pairs(self, matches: Matches) -> Float[Tensor, " p"]:
        """Scores of the matching pairs."""
        scores = []
        for start in range(0, len(self.places), PAIRS_SIDE):
            stop = min(start + PAIRS_SIDE, len(self.places))
            part = matches.pairs[(matches.pairs[:, 0] >= start) & (matches.pairs[:, 0] < stop)]
            texts, column = torch.unique(part[:, 1], return_inverse=True)
            scores.append(self._block(range(start, stop), texts.tolist())[part[:, 0] - start, column])
        return torch.cat(scores)

    def columns(self, texts: Sequence[int]) -> Float[Tensor, "i q"]:
        """Scores of all images against some of the texts."""
        return self._block(range(len(self.places)), texts)

    @torch.inference_mode()
    def _block(self, images: Sequence[int], texts: Sequence[int]) -> Tensor:
        tokens = [
            self.model.tokenizer.batch([self.texts[t] for t in texts[i : i + PAIRS_SIDE]])
            for i in range(0, len(texts), PAIRS_SIDE)
        ]
        device = self.model.device
        network: Any = self.model.model
        return torch.cat(
            [
                torch.cat([network.score(b.images.to(device), t.to(device), n) for t, n in tokens], 1)
                for b in self.reader.batches([self.places[i] for i in images])
            ]
        ).to("cpu", torch.float32)


class Gallery(NamedTuple):
    """What a pass over a split's images found: the readable ones' places, hashes and (if the model embeds) vectors."""

    places: list[int]
    hashes: list[bytes]
    vectors: Tensor | None


@torch.inference_mode()
def read_gallery(model: Pretrained, reader: ImageReader, places: Sequence[int], who: str) -> Gallery:
    """Decode, hash and embed the images at `places`. Raises EvalError where the model can neither embed nor score."""
    embeds = can_embed(model, who)
    kept: list[int] = []
    hashes: list[bytes] = []
    vectors: list[Tensor] = []
    for batch in reader.batches(places):
        kept += batch.places
        hashes += batch.hashes
        if embeds:
            network: Any = model.model
            vectors.append(network.embed_image(batch.images.to(model.device)).float().cpu())
    if not kept:
        raise EvalError(
            f"{who} must be given at least one readable image; got {len(places)} to read and {len(reader.broken)} "
            "broken. Look at the split with: diptych inspect"
        )
    return Gallery(kept, hashes, torch.cat(vectors) if embeds else None)


def can_embed(model: Pretrained, who: str) -> bool:
    """Whether the model embeds both sides; if not it must score pairs, else EvalError."""
    if {"embed_image", "embed_text"} <= set(model.capabilities):
        return True
    require(model.model, ("score",), who)
    return False


def choose_places(split: Any, max_items: int) -> list[int]:
    """`max_items` places of the split in order (0: all), the same ones each time.

    Never simply the first: a split that was packed folder by folder begins with one class.
    """
    size = len(split)
    if not max_items or max_items >= size:
        return list(range(size))
    return sorted(permute(i, size, "max_items") for i in range(max_items))


def describe_broken(reader: ImageReader, most: int = 20) -> dict[str, Any]:
    """How many images were left out because they could not be decoded, and the first few by name with their reasons."""
    named = sorted(reader.broken.items())[:most]
    return {"count": len(reader.broken), "first": {reader.split.uid(place): why for place, why in named}}


def thumbnail(split: Any, place: int, side: int = 96) -> str:
    """An image of the split as a small JPEG in base64 (without a data: prefix)."""
    image = resize_long_side(decode_image(split.image_bytes(place), at_least=2 * side), side)
    return base64.b64encode(encode_jpeg(image, quality=85)).decode()


def rounded(values: Tensor | np.ndarray, digits: int = 4) -> list[Any]:
    """Numbers as a nested list, short enough for a report."""
    array = values.numpy() if isinstance(values, Tensor) else values
    return list(np.round(array.astype(float), digits).tolist())


def _check(name: str, vectors: Tensor) -> None:
    bad = int((~vectors.isfinite()).any(1).sum())
    if bad:
        raise EvalError(
            f"{name} embeddings must be finite; got {bad} of {len(vectors)} with NaN or infinity. "
            "The weights or the precision are broken: load an earlier checkpoint, or evaluate in float32."
        )
