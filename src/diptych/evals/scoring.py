"""How an eval reads a split and scores it with whatever the model can do: by embeddings, else pair by pair.

`EmbeddedItems` and `ScoredItems` answer the same questions (rows, pairs, columns), so that an eval is written once.
"""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.core.image_format import ImageFormat
from diptych.core.seeds import permute
from diptych.data.decode import decode_image, encode_jpeg, resize_long_side
from diptych.data.image_reader import ImageBatch, ImageReader
from diptych.data.tokenize import Encoded
from diptych.evals.eval import EvalConfig
from diptych.evals.ranking import Matches, pair_products
from diptych.evals.statistics import PairedTest
from diptych.models.capabilities import capabilities_of, require
from diptych.models.pretrained import Pretrained
from diptych.models.vector_memory import VectorMemory, image_key
from diptych.models.writer import Writer

PAIRS_SIDE = 32
"""A model without embeddings scores blocks of so many images at once."""

TEXTS_SIDE = 128
"""And so many texts: of about equal length, for a model that writes reads them padded."""

KEPT = 1 << 24
"""Scores that are kept once they are computed (64 MB), so that no pair is scored twice."""


class PairScoringConfig(EvalConfig):
    """Base of the settings of evals that score images against texts."""

    abstract: ClassVar[bool] = True
    scored_by: Literal["auto", "embeddings", "score", "log_likelihood"] = "auto"
    """What scores a pair: the cosine of embeddings, the model's own score, or log p(text | image). "auto": embeddings
    where the model has them, else its own score, which of most models that write is log p."""
    text_prior: Literal["kept", "removed"] = "kept"
    """Take log p(text) off log p(text | image), so that what is likely in any case counts for nothing: a model that
    writes well and sees nothing then falls to chance."""
    image_prior: Literal["kept", "removed"] = "kept"
    """Take log p(image) off log p(image | text), or the error without words off the error with them, of a model that
    scores so: else every text finds the images that are likely, or easy, in any case."""
    per_token: bool = False
    """Divide log p by the text's number of tokens, so that long texts are not at a disadvantage."""
    most_scored: int = Field(0, ge=0)
    """Look at so many images at most with a model without embeddings, which scores every pair; 0: as with others."""

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Where the model neither embeds nor scores."""
        has = capabilities_of(model.model)
        return "" if "score" in has or {"embed_image", "embed_text"} <= {*has} else "the model scores no pairs"


class Scoring(NamedTuple):
    """How pairs are scored, once it is known what the model can do. `prior_removed` (of the text) and `per_token` are
    of log p(text | image) only, `image_prior_removed` of the score of a model that knows log p(image)."""

    by: Literal["embeddings", "score", "log_likelihood"]
    prior_removed: bool = False
    per_token: bool = False
    image_prior_removed: bool = False


def choose_scoring(model: Pretrained, config: PairScoringConfig, who: str) -> Scoring:
    """How `model` scores pairs for the eval called `who`. Raises EvalError where it cannot as the settings say."""
    has = set(capabilities_of(model.model))
    if config.image_prior == "removed":
        return _without_image_prior(model, config, has)
    removed = config.text_prior == "removed"
    if removed or config.per_token:
        asked = "text_prior=removed" if removed else "per_token=true"
        if "log_likelihood" not in has:
            raise EvalError(
                f"{asked} must be asked of a model that knows log p(text | image); got {type(model.model).__name__} "
                f"with {', '.join(sorted(has)) or 'none of the capabilities'}. Leave it out, or train one that writes."
            )
        if config.scored_by not in ("auto", "log_likelihood"):
            raise EvalError(
                f"{asked} must go with scored_by=log_likelihood; got scored_by={config.scored_by}. Choose one of them."
            )
        return Scoring("log_likelihood", removed, config.per_token)
    if config.scored_by == "auto":
        if {"embed_image", "embed_text"} <= has:
            return Scoring("embeddings")
        if "log_likelihood" in has and getattr(type(model.model), "score", None) is Writer.score:
            return Scoring("log_likelihood")
        require(model.model, ("score",), who)
        return Scoring("score")
    needs = {"embeddings": ("embed_image", "embed_text")}.get(config.scored_by, (config.scored_by,))
    require(model.model, needs, who)
    return Scoring(config.scored_by)


def _without_image_prior(model: Pretrained, config: PairScoringConfig, has: set[str]) -> Scoring:
    if not {"image_prior", "score"} <= has:
        raise EvalError(
            f"image_prior=removed must be asked of a model that knows log p(image); got {type(model.model).__name__} "
            f"with {', '.join(sorted(has)) or 'none of the capabilities'}. Leave it out, or train one that paints."
        )
    if config.text_prior == "removed" or config.per_token or config.scored_by not in ("auto", "score"):
        raise EvalError(
            "image_prior=removed must go with scored_by=score alone; got it with scored_by="
            f"{config.scored_by}, text_prior={config.text_prior}, per_token={config.per_token}. Choose one of them."
        )
    return Scoring("score", image_prior_removed=True)


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
    """Scores come from the model, a block at a time. Images are read once a pass, and texts in order of their length.

    All scores are computed at the first question and kept, if they are not more than KEPT; else images are decoded anew
    for each pass over them.
    """

    def __init__(
        self,
        model: Pretrained,
        reader: ImageReader,
        places: Sequence[int],
        texts: Sequence[str],
        scoring: Scoring,
    ) -> None:
        self.model, self.reader, self.places, self.texts = model, reader, list(places), list(texts)
        self.scoring = scoring
        self._rows: list[Encoded] = model.tokenizer.encode_all(self.texts)
        self._prior: Tensor | None = None
        self._image_prior: dict[int, float] = {}
        self._all: Tensor | None = None

    def rows(self, start: int, stop: int) -> Float[Tensor, "c t"]:
        """Scores of images start..stop against all texts."""
        if (known := self._known()) is not None:
            return known[start:stop]
        return self._block(range(start, stop), range(len(self.texts)))

    def pairs(self, matches: Matches) -> Float[Tensor, " p"]:
        """Scores of the matching pairs."""
        if (known := self._known()) is not None:
            return known[matches.pairs[:, 0], matches.pairs[:, 1]]
        scores = []
        for start in range(0, len(self.places), PAIRS_SIDE):
            stop = min(start + PAIRS_SIDE, len(self.places))
            part = matches.pairs[(matches.pairs[:, 0] >= start) & (matches.pairs[:, 0] < stop)]
            texts, column = torch.unique(part[:, 1], return_inverse=True)
            scores.append(self._block(range(start, stop), texts.tolist())[part[:, 0] - start, column])
        return torch.cat(scores)

    def columns(self, texts: Sequence[int]) -> Float[Tensor, "i q"]:
        """Scores of all images against some of the texts."""
        if (known := self._known()) is not None:
            return known[:, list(texts)]
        return self._block(range(len(self.places)), texts)

    def _known(self) -> Tensor | None:
        if self._all is None and len(self.places) * len(self.texts) <= KEPT:
            self._all = self._block(range(len(self.places)), range(len(self.texts)))
        return self._all

    @torch.inference_mode()
    def _block(self, images: Sequence[int], texts: Sequence[int]) -> Tensor:
        order = sorted(texts, key=lambda t: len(self._rows[t].ids))
        blocks = [self._batch(order[i : i + TEXTS_SIDE]) for i in range(0, len(order), TEXTS_SIDE)]
        scores = torch.cat(
            [
                self._less_prior(batch, torch.cat(self._scored(batch.images.to(self.model.device), blocks), 1))
                for batch in self.reader.batches([self.places[i] for i in images])
            ]
        )
        if self.scoring.by == "log_likelihood":
            scores = self._adjusted(scores, order)
        back = {t: n for n, t in enumerate(order)}
        return scores[:, [back[t] for t in texts]]

    def _scored(self, images: Tensor, blocks: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The scores of some images against each block of texts."""
        network: Any = self.model.model
        if self.scoring.by == "score":
            return [network.score(images, tokens, lengths) for tokens, lengths in blocks]
        if "generate_text" not in self.model.capabilities:
            return [network.log_likelihood(images, tokens, lengths) for tokens, lengths in blocks]
        read = network.begin_images(images)
        return [network.likelihoods(read, tokens, lengths) for tokens, lengths in blocks]

    def _less_prior(self, batch: ImageBatch, scores: Float[Tensor, "b t"]) -> Float[Tensor, "b t"]:
        """Scores of a batch of images without what the images alone are worth, where the settings ask for that."""
        scores = scores.to("cpu", torch.float32)
        return scores - self._image_priors(batch)[:, None] if self.scoring.image_prior_removed else scores

    def _image_priors(self, batch: ImageBatch) -> Float[Tensor, " b"]:
        new = [n for n, place in enumerate(batch.places) if place not in self._image_prior]
        if new:
            network: Any = self.model.model
            prior = network.image_prior(batch.images[new].to(self.model.device)).tolist()
            self._image_prior.update(zip((batch.places[n] for n in new), prior, strict=True))
        return torch.tensor([self._image_prior[place] for place in batch.places])

    def _adjusted(self, scores: Tensor, order: Sequence[int]) -> Tensor:
        """Without what the words alone make likely, and a token's share of it, where the settings ask for that."""
        if self.scoring.prior_removed:
            if self._prior is None:
                self._prior = self._priors()
            scores = scores - self._prior[list(order)]
        if self.scoring.per_token:
            scores = scores / torch.tensor([max(1, len(self._rows[t].ids) - 1) for t in order])
        return scores

    def _priors(self) -> Float[Tensor, " t"]:
        network: Any = self.model.model
        order = sorted(range(len(self.texts)), key=lambda t: len(self._rows[t].ids))
        prior = torch.empty(len(order))
        for i in range(0, len(order), TEXTS_SIDE):
            part = order[i : i + TEXTS_SIDE]
            prior[part] = network.text_prior(*self._batch(part)).to("cpu", torch.float32)
        return prior

    def _batch(self, texts: Sequence[int]) -> tuple[Tensor, Tensor]:
        tokens, lengths = self.model.tokenizer.pad([self._rows[t] for t in texts])
        return tokens.to(self.model.device), lengths


class SomeTexts:
    """Some of the texts of others, in any order, a text as often as it is named."""

    def __init__(self, items: Items, texts: Sequence[int]) -> None:
        self.items, self.texts = items, list(texts)

    def rows(self, start: int, stop: int) -> Float[Tensor, "c t"]:
        """Scores of images start..stop against these texts."""
        return self.items.rows(start, stop)[:, self.texts]


class Gallery(NamedTuple):
    """What a pass over a split's images found: the readable ones' places, hashes and (if the model embeds) vectors."""

    places: list[int]
    hashes: list[bytes]
    vectors: Tensor | None


Change = Callable[[UInt8[Tensor, "b 3 s s"], Sequence[int]], UInt8[Tensor, "b 3 s s"]]
"""What is done to images at those places of a split before they are looked at: a corruption, a grey copy."""


@torch.inference_mode()
def read_gallery(
    model: Pretrained,
    reader: ImageReader,
    places: Sequence[int],
    who: str,
    embed: bool,
    change: tuple[str, Change] | None = None,
) -> Gallery:
    """Decode and hash the images at `places`, and embed them if `embed`: those alone that `model.memory` does not know.

    `change`: the name of what is done to the pixels, which tells its vectors from those of the images as they are, and
    the function. Raises EvalError where no image can be read.
    """
    kept: list[int] = []
    hashes: list[bytes] = []
    memory = VectorMemory() if model.memory is None else model.memory
    network: Any = model.model
    for batch in reader.batches(places):
        kept += batch.places
        hashes += batch.hashes
        keys = [image_key(h, change[0] if change else "") for h in batch.hashes]
        if embed and (new := memory.missing("image", keys)):
            images = batch.images[new]
            images = change[1](images, [batch.places[i] for i in new]) if change else images
            memory.add("image", [keys[i] for i in new], network.embed_image(images.to(model.device)))
    if not kept:
        raise EvalError(
            f"{who} must be given at least one readable image; got {len(places)} to read and {len(reader.broken)} "
            "broken. Look at the split with: diptych inspect"
        )
    every = [image_key(h, change[0] if change else "") for h in hashes]
    return Gallery(kept, hashes, memory.get("image", every) if embed else None)


def blank_images(format: ImageFormat, count: int) -> UInt8[Tensor, "{count} 3 s s"]:
    """Images of the mean colour, on which nothing is to be seen."""
    colour = (255 * torch.tensor(format.mean)).round().to(torch.uint8)
    return colour.view(1, 3, 1, 1).repeat(count, 1, format.resolution, format.resolution)


def distinct(hashes: Sequence[bytes]) -> Int64[np.ndarray, " n"]:
    """Which images have equal bytes: a number each, equal for equal ones, which are one independent item."""
    return np.unique(np.array([h.hex() for h in hashes]), return_inverse=True)[1]


def paired_values(test: PairedTest, verdict: str = "") -> dict[str, Any]:
    """A paired test as JSON values; `verdict`: another than its own."""
    return {
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "p_value": test.p_value,
        "verdict": verdict or test.verdict(),
    }


def places_to_score(split: Any, config: PairScoringConfig, scoring: Scoring) -> list[int]:
    """The places of the images that an eval looks at: fewer where every pair has to be scored."""
    most = config.max_items
    if scoring.by != "embeddings" and config.most_scored:
        most = min(config.most_scored, most or len(split))
    return choose_places(split, most)


def choose_places(split: Any, max_items: int) -> list[int]:
    """`max_items` places of the split in order (0: all), the same ones each time.

    Never simply the first: a split that was packed folder by folder begins with one class.
    """
    size = len(split)
    if not max_items or max_items >= size:
        return list(range(size))
    return sorted(permute(i, size, "max_items") for i in range(max_items))


def dataset_folder(given: str, split: Any) -> Path | None:
    """What opens the split's dataset: as given, else where unpacked data says it lies, or two levels above the split's
    first shard (DIR/val/00000.tar)."""
    if given or getattr(split, "path", None):
        return Path(given or split.path)
    shards = getattr(split, "shards", None)
    return Path(shards[0]).parent.parent if shards else None


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
    bad = sum(int((~part.isfinite()).any(1).sum()) for part in vectors.split(1 << 16))  # a table may fill the memory
    if bad:
        raise EvalError(
            f"{name} embeddings must be finite; got {bad} of {len(vectors)} with NaN or infinity. "
            "The weights or the precision are broken: load an earlier checkpoint, or evaluate in float32."
        )
