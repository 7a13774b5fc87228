"""Language models as parts of models that write: embeddings in, the states from which next tokens are read out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from diptych.core.config import Config
from diptych.nn.cache import Cache
from diptych.nn.mask import MaskPlan

BeforeBlock = Callable[[int, Tensor], Tensor]
"""What is done to the tokens before block i: where Flamingo puts its gated cross-attention."""


class LanguageConfig(Config):
    """Base of every language model's settings."""

    abstract: ClassVar[bool] = True

    def build(self, vocab_size: int, context_length: int) -> "Language":
        """The language model with fresh weights, for rows of at most `context_length` tokens, images' included."""
        raise NotImplementedError

    def token_width(self) -> int:
        """Width of the vectors that it reads, known before it is built."""
        raise NotImplementedError


class Language(nn.Module, ABC):
    """A causal transformer without its first and its last step: those are `embed` and `logits`."""

    width: int
    vocab_size: int
    context_length: int
    depth: int

    @abstractmethod
    def embed(self, tokens: Int64[Tensor, "b t"], start: Int64[Tensor, " b"] | None = None) -> Float[Tensor, "b t d"]:
        """Tokens as vectors. `start`: how many text tokens of its row came before each row's first (None: none), for
        models that count positions among the text alone."""

    @abstractmethod
    def begin(self) -> Cache:
        """What it will note of the tokens that it reads; nothing is read yet."""

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "r l d"],
        mask: MaskPlan | None,
        positions: Int64[Tensor, "#r l"],
        reading: Cache | None = None,
        before: BeforeBlock | None = None,
        context: Float[Tensor, "r k c"] | None = None,
        only: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "r l d"] | Float[Tensor, "n d"]:
        """The states after the last norm. `positions` are places in the record. With `reading`, x are the tokens that
        follow what was read, and are read too; `mask` is over all of them. `context` is what blocks with
        cross-attention attend to; `only`: the places, counted row by row, whose states are wanted."""

    @abstractmethod
    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        """Weight and bias of the map from states to logits."""

    def logits(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """What each state says of the next token."""
        weight, bias = self.head()
        return nn.functional.linear(hidden, weight, bias)

    def decay_free(self) -> set[str]:
        """Names (relative to this module) of parameters of two or more dimensions that must not be decayed."""
        return set()
