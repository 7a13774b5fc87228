"""Connectors: from an image tower's tokens to tokens that a language model reads. One file of this folder each."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from diptych.core.config import Config


class Given(NamedTuple):
    """What a connector is given: `tokens` of width `width`; `side`: of the square grid that they are, 0: none."""

    tokens: int
    width: int
    side: int


class ConnectorConfig(Config):
    """Base of every connector's settings."""

    abstract: ClassVar[bool] = True

    def build(self, given: Given, width: int) -> "Connector":
        """The connector with fresh weights, whose outputs are `width` wide."""
        raise NotImplementedError


class Connector(nn.Module, ABC):
    """Maps an image's tokens to others; `tokens` is how many come out."""

    tokens: int

    @abstractmethod
    def forward(self, x: Float[Tensor, "i p c"]) -> Float[Tensor, "i m d"]: ...

    def decay_free(self) -> set[str]:
        """Names (relative to this module) of parameters of two or more dimensions that must not be decayed."""
        return set()
