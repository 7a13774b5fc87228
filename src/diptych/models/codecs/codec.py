"""Image codecs: images as a small grid of codes or of vectors, and back.

Two abilities, of which a codec may have both: an `ImageTokenizer` says which code stands at each place of the grid
(what masked modelling foresees, what early fusion reads and writes); an `ImageDecoder` makes pixels of latents (what is
painted). A codec is a model like any other, trained by `objectives/codec.py` in a run of its own; as a frozen part of
another model it comes from that run by ``parts={"codec": "stage:codec#"}``.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from diptych.models.model import Model, ModelConfig


class CodecConfig(ModelConfig):
    """Base of every image codec's settings. `image_format`: the side of the images that it sees; mean and std are of
    other models, for a codec's pixels are its own affair. The vocabulary given to `build` means nothing to it."""

    abstract: ClassVar[bool] = True

    def build(self, vocab_size: int = 0) -> "Codec":
        """The codec with fresh weights."""
        raise NotImplementedError


class Term(NamedTuple):
    """A part of a codec's loss: `value` of each image, not yet weighted, and its weight."""

    value: Float[Tensor, " b"]
    weight: float | Float[Tensor, ""] = 1.0


class Autoencoded(NamedTuple):
    """What one pass of a codec says of images, for `objectives/codec.py`.

    found, wanted  pixels in 0..1 as they came back and as they were; None of a codec that returns none
    terms          what of the loss is the codec's own affair, by name
    rated          whether `terms` already rate the pixels (a likelihood): then the objective does not
    """

    found: Float[Tensor, "b 3 s s"] | None
    wanted: Float[Tensor, "b 3 s s"] | None
    terms: dict[str, Term]
    rated: bool = False


class Codec(Model, ABC):
    """What all codecs share. `grid`: rows and columns of the latents of an image at the format's side."""

    grid: tuple[int, int]

    def forward(
        self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"], keys: Int64[Tensor, " b"]
    ) -> Autoencoded:
        """There and back, with a gradient, and what it costs; `keys` decide each image's draws (nn/draws.py)."""
        raise NotImplementedError

    def health(self) -> dict[str, float]:
        """Numbers for the log and the doctor."""
        return {}

    def at_side(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        """Pixels in 0..1, at the side that the codec is made for: others are resized, antialiased, as FLAVA shows its
        codec each crop at half its side."""
        side = self.config.image_format.resolution
        x = images.to(self.pixel_mean.dtype)
        if x.shape[-2:] != (side, side):
            x = F.interpolate(x, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
        return x / 255

    def decay_free(self) -> set[str]:
        return set()


class ImageTokenizer(Codec):
    """A codec with a codebook of `codebook_size` codes, a code a place of the grid, row by row."""

    codebook_size: int

    @abstractmethod
    def codes(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b n"]:
        """The codes of images of 0..255, without gradient."""


class ImageDecoder(Codec):
    """A codec whose latents are (b, `latent_channels`, *grid) and become pixels again."""

    latent_channels: int

    @abstractmethod
    def encode(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c r k"]:
        """The latents of images of 0..255: of a variational codec the mean, of a discrete one the vectors of its
        codes."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "b c r k"]) -> Float[Tensor, "b 3 s s"]:
        """Pixels in 0..1, which may go a little beyond."""

    def pixels(self, latents: Float[Tensor, "b c r k"]) -> UInt8[Tensor, "b 3 s s"]:
        """`decode` as uint8."""
        return as_pixels(self.decode(latents))

    @torch.no_grad()
    def reconstruct(self, images: UInt8[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 s s"]:
        """Images there and back."""
        return self.pixels(self.encode(images))


class CodeBook(ImageTokenizer, ImageDecoder):
    """A discrete codec that paints: dVAE, VQ-VAE, VQGAN."""

    @abstractmethod
    def latents_of(self, codes: Int64[Tensor, "b n"]) -> Float[Tensor, "b c r k"]:
        """The latents that codes stand for."""

    @torch.no_grad()
    def paint(self, codes: Int64[Tensor, "b n"]) -> UInt8[Tensor, "b 3 s s"]:
        """The images that codes stand for."""
        return self.pixels(self.latents_of(codes))


def as_pixels(x: Float[Tensor, "*s"]) -> UInt8[Tensor, "*s"]:
    """Pixels of 0..1 as uint8, rounded and held in range."""
    return (255 * x.float()).round().clamp(0, 255).to(torch.uint8)
