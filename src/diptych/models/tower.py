"""Towers: an encoder of one modality with its pooling and its projection into the shared space."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from diptych.core.config import Config
from diptych.nn.patch_masking import hide_pixels


class ImageTowerConfig(Config):
    """Base of every image tower's settings."""

    abstract: ClassVar[bool] = True

    def build(self, resolution: int, embed_dim: int) -> "ImageTower":
        """The tower with fresh weights, for square images of side `resolution`."""
        raise NotImplementedError


class ImageTower(nn.Module, ABC):
    """Maps normalised float pixels to one vector an image (not yet of unit length)."""

    width: int
    """Size of each vector that `tokens` returns."""

    @abstractmethod
    def tokens(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p d"]:
        """Per-patch outputs, after the last norm, before pooling; a CLS token, where there is one, comes first."""

    def tokens_of_masked(self, images: Float[Tensor, "b 3 h w"], masked: Bool[Tensor, "b n"]) -> Float[Tensor, "b p d"]:
        """`tokens` of images of which the masked cells of a square grid are hidden: nothing depends on what is there.

        Here those pixels are of the mean colour; a tower with a mask token puts that in the place of the patches.
        """
        return self.tokens(hide_pixels(images, masked))

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Pooled and projected."""

    def decay_free(self) -> set[str]:
        """Names (relative to this tower) of parameters of two or more dimensions that must not be decayed."""
        return set()


class TextTowerConfig(Config):
    """Base of every text tower's settings."""

    abstract: ClassVar[bool] = True

    def build(self, vocab_size: int, context_length: int, embed_dim: int) -> "TextTower":
        """The tower with fresh weights."""
        raise NotImplementedError


class TextTower(nn.Module, ABC):
    """Maps token ids to one vector a text (not yet of unit length). Lengths are given, never inferred from ids."""

    width: int

    @abstractmethod
    def tokens(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b t d"]:
        """Per-token outputs, after the last norm, before pooling."""

    @abstractmethod
    def forward(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Pooled and projected."""

    def decay_free(self) -> set[str]:
        """Names (relative to this tower) of parameters of two or more dimensions that must not be decayed."""
        return set()
