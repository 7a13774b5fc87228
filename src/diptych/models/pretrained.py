"""A model with what it needs to be used: its tokenizer, pixel format and fingerprint. What `load` returns."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import DataError
from diptych.data.decode import decode_image, resize_image
from diptych.data.tokenize import Tokenizer
from diptych.models.capabilities import EmbedsImages, EmbedsText, ScoresPairs, capabilities_of, require
from diptych.models.model import Model

ImageLike = Any
"""A path, encoded bytes, a PIL image, a uint8 array (h, w, 3) or a uint8 tensor (3, h, w)."""


class Pretrained:
    """Embeds and scores raw images and strings. Batches are formed here; gradients are off.

    Its methods take a single item or a sequence of them and return one row an item, on the CPU in float32.
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

    @torch.inference_mode()
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

    @torch.inference_mode()
    def embed_text(self, texts: str | Sequence[str], batch_size: int = 256) -> Float[Tensor, "n e"]:
        """Unit vectors of texts."""
        require(self.model, ("embed_text",), "embed_text")
        rows = []
        for part in _parts([texts] if isinstance(texts, str) else list(texts), batch_size):
            tokens, lengths = self.tokenizer.batch(part)
            embedded = cast(EmbedsText, self.model).embed_text(tokens.to(self.device), lengths.to(self.device))
            rows.append(embedded.float().cpu())
        return torch.cat(rows)

    @torch.inference_mode()
    def score(self, images: ImageLike | Sequence[ImageLike], texts: str | Sequence[str]) -> Float[Tensor, "i t"]:
        """How well each image and each text match; higher is better."""
        require(self.model, ("score",), "score")
        tokens, lengths = self.tokenizer.batch([texts] if isinstance(texts, str) else list(texts))
        tokens, lengths = tokens.to(self.device), lengths.to(self.device)
        rows = [
            cast(ScoresPairs, self.model)
            .score(torch.stack([self.pixels(i) for i in part]).to(self.device), tokens, lengths)
            .float()
            .cpu()
            for part in _parts(_listed(images), 64)
        ]
        return torch.cat(rows)


def _listed(images: Any) -> list[Any]:
    if isinstance(images, (str, bytes, Path)) or not isinstance(images, (Sequence, Tensor, np.ndarray)):
        return [images]
    if isinstance(images, (Tensor, np.ndarray)):
        return list(images) if images.ndim == 4 else [images]
    return list(images)


def _parts(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    items = list(items)
    return (items[i : i + size] for i in range(0, len(items), size))


def _as_tensor(image: ImageLike) -> Tensor:
    if isinstance(image, (str, Path)):
        try:
            image = Path(image).read_bytes()
        except OSError as error:
            raise DataError(f"an image must be a file that can be read; got {image!r} ({error.strerror}).") from None
    if isinstance(image, bytes):
        return decode_image(image)
    if isinstance(image, np.ndarray):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if isinstance(image, Tensor):
        return image
    buffer = io.BytesIO()  # a PIL image: through the one decoder, so that alpha and orientation are treated alike
    image.save(buffer, format="PNG")
    return decode_image(buffer.getvalue())
