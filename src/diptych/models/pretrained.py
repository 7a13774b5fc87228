"""A model with what it needs to be used: its tokenizer, pixel format and fingerprint. What `load` returns."""

import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import DataError
from diptych.data.decode import MAX_BYTES, decode_image, resize_image
from diptych.data.tokenize import Tokenizer
from diptych.models.capabilities import EmbedsImages, EmbedsText, ScoresPairs, capabilities_of, require
from diptych.models.model import Model

ImageLike = Any
"""A path, encoded bytes, a PIL image, a uint8 array (h, w, 3) or a uint8 tensor (3, h, w)."""


TOKENS = {"cuda": 1 << 16, "cpu": 1 << 12}
"""Tokens of texts that are embedded at once."""

TOKENIZED = 4096
"""Texts that are tokenised at once, and whose vectors come back from the device at once."""


class Pretrained:
    """Embeds and scores raw images and strings. Batches are formed here; gradients are off.

    Its methods take a single item or a sequence of them and return one row an item, on the CPU in float32: plain
    tensors, on which a probe can be trained.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, fingerprint: str = "", name: str = "") -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self.name = name

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The names of what this model can do."""
        return capabilities_of(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> "Pretrained":
        """The same object with its weights moved."""
        self.model.to(device)
        return self

    def pixels(self, image: ImageLike) -> Tensor:
        """One image as uint8 (3, side, side), decoded safely and resized as the model's format says."""
        return resize_image(_as_tensor(image), self.model.config.image_format)

    @torch.no_grad()
    def embed_image(self, images: ImageLike | Sequence[ImageLike], batch_size: int = 64) -> Float[Tensor, "n e"]:
        """Unit vectors of images."""
        require(self.model, ("embed_image",), "embed_image")
        rows = [
            cast(EmbedsImages, self.model)
            .embed_image(torch.stack([self.pixels(i) for i in part]).to(self.device))
            .float()
            .cpu()
            for part in _parts(_listed(images), batch_size)
        ]
        return torch.cat(rows)

    @torch.no_grad()
    def embed_text(self, texts: str | Sequence[str], batch_size: int = 0) -> Float[Tensor, "n e"]:
        """Unit vectors of texts, `batch_size` at a time; 0: as many as have some thousand tokens together.

        Long and short texts may be mixed: towers pack them, and texts that begin alike are best given side by side.
        """
        require(self.model, ("embed_text",), "embed_text")
        rows = []
        for part in _parts(_strings(texts), TOKENIZED):
            tokens, lengths = self.tokenizer.batch(part)
            pieces = [
                cast(EmbedsText, self.model).embed_text(tokens[a:b].to(self.device), lengths[a:b]).float()
                for a, b in self._pieces(tokens, lengths, batch_size)
            ]
            rows.append(torch.cat(pieces).cpu())
        return torch.cat(rows)

    @torch.no_grad()
    def score(self, images: ImageLike | Sequence[ImageLike], texts: str | Sequence[str]) -> Float[Tensor, "i t"]:
        """How well each image and each text match; higher is better."""
        require(self.model, ("score",), "score")
        tokens, lengths = self.tokenizer.batch(_strings(texts))
        tokens = tokens.to(self.device)
        rows = [
            cast(ScoresPairs, self.model)
            .score(torch.stack([self.pixels(i) for i in part]).to(self.device), tokens, lengths)
            .float()
            .cpu()
            for part in _parts(_listed(images), 64)
        ]
        return torch.cat(rows)

    def _pieces(self, tokens: Tensor, lengths: Tensor, batch_size: int) -> list[tuple[int, int]]:
        """Where to cut texts so that a piece has enough tokens to keep the device busy, and no more."""
        if batch_size:
            return [(i, min(i + batch_size, len(tokens))) for i in range(0, len(tokens), batch_size)]
        budget = TOKENS["cuda" if self.device.type == "cuda" else "cpu"]
        computed = lengths if self.tokenizer.config.pad_to == "longest" else torch.full_like(lengths, tokens.shape[1])
        piece = (computed.cumsum(0) - 1) // budget
        cuts = [0, *((piece.diff() > 0).nonzero()[:, 0] + 1).tolist(), len(tokens)]
        return list(itertools.pairwise(cuts))


def _listed(images: Any) -> list[Any]:
    if isinstance(images, (str, bytes, Path)) or not isinstance(images, (Sequence, Tensor, np.ndarray)):
        return [images]
    if isinstance(images, (Tensor, np.ndarray)):
        return _some(list(images) if images.ndim == 4 else [images], "images")
    return _some(list(images), "images")


def _some(items: list[Any], what: str) -> list[Any]:
    if not items:
        raise DataError(f"{what} must be at least one; got an empty list. Leave the call out where there is nothing.")
    return items


def _strings(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else _some(list(texts), "texts")


def _parts(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    items = list(items)
    return (items[i : i + size] for i in range(0, len(items), size))


def _as_tensor(image: ImageLike) -> Tensor:
    if isinstance(image, (str, Path)):
        try:
            with Path(image).open("rb") as file:
                image = file.read(MAX_BYTES + 1)  # the decoder refuses more, and it need not all be read for that
        except OSError as error:
            raise DataError(f"an image must be a file that can be read; got {image!r} ({error.strerror}).") from None
    if isinstance(image, bytes):
        return decode_image(image)
    if isinstance(image, np.ndarray):
        shape, fits = image.shape, image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        if fits and min(shape):
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)
        raise DataError(f"an image array must be uint8 of shape (height, width, 3); got {image.dtype} {tuple(shape)}.")
    if isinstance(image, Tensor):
        if image.ndim == 3 and image.shape[0] == 3 and image.dtype == torch.uint8 and image.numel():
            return image.cpu()
        raise DataError(
            f"an image tensor must be torch.uint8 of shape (3, height, width); got {image.dtype} {tuple(image.shape)}."
        )
    return _of_pil(image)


def _of_pil(image: Any) -> Tensor:
    """A PIL image through the one decoder, so that alpha, palette and orientation are treated alike."""
    if not (hasattr(image, "save") and hasattr(image, "getexif")):
        raise DataError(
            f"an image must be a path, encoded bytes, a PIL image, an array or a tensor; got {type(image).__name__}."
        )
    buffer, exif = io.BytesIO(), image.getexif()
    if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image.save(buffer, format="PNG", exif=exif)
    elif image.mode == "CMYK":
        image.save(buffer, format="TIFF", exif=exif)
    else:
        image.convert("RGB").save(buffer, format="PNG", exif=exif)
    return decode_image(buffer.getvalue())
