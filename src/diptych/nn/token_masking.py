"""Hiding tokens of a text: BERT's corruption (Devlin et al., 2019, arXiv:1810.04805, section 3.1), whole words too."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int64
from pydantic import Field, model_validator
from torch import Tensor

from diptych.core.config import Config
from diptych.nn.draws import uniform


class TokenMaskingConfig(Config):
    """How tokens are hidden.

    rate      share of a text's tokens that are to be foreseen; at least one of each text that has any. Its first and
              last token (start and end) never are
    replaced, random  of these, the shares that become the mask token and a token drawn from the whole vocabulary; the
              others stay as they are
    unit      "word": all tokens of a word or none; words are taken until the share is reached
    """

    rate: float = Field(default=0.15, gt=0, le=1)
    replaced: float = Field(default=0.8, ge=0, le=1)
    random: float = Field(default=0.1, ge=0, le=1)
    unit: Literal["token", "word"] = "token"

    @model_validator(mode="after")
    def _shares(self) -> "TokenMaskingConfig":
        if self.replaced + self.random > 1:
            raise ValueError(
                f"TokenMaskingConfig.replaced and random must be shares that add up to 1 at most; got {self.replaced} "
                f"and {self.random}. BERT has 0.8 and 0.1."
            )
        return self

    def most(self, width: int) -> int:
        """How many tokens of texts of at most `width` are hidden at most, so that no shape is read back. Whole words
        may be more than the share."""
        if self.unit == "word":
            return width
        count = (self.rate * torch.tensor(max(width - 2, 0))).round()  # as each text's own is found, in float32
        return min(width, max(1, int(count)))


class MaskedTokens(NamedTuple):
    """The corrupted ids, and which tokens are to be foreseen."""

    tokens: Int64[Tensor, "b t"]
    masked: Bool[Tensor, "b t"]


def mask_tokens(
    tokens: Int64[Tensor, "b t"],
    lengths: Int64[Tensor, " b"],
    keys: Int64[Tensor, " b"],
    config: TokenMaskingConfig,
    mask_id: int,
    vocab_size: int,
    word_starts: Bool[Tensor, "b t"] | None = None,
) -> MaskedTokens:
    """Texts with some tokens hidden, which each text's key decides.

    `lengths` may lie on the host or the device; `word_starts` (which tokens begin a word) is needed for whole words.
    """
    b, t = tokens.shape
    place = torch.arange(t, device=tokens.device)
    known = lengths.to(tokens.device, non_blocking=True)[:, None]
    inside = (place > 0) & (place < known - 1)  # (b, t)
    count = (config.rate * inside.sum(1, keepdim=True)).round().clamp_min(1)
    score = uniform(keys, "masked tokens", t)
    if config.unit == "word":
        assert word_starts is not None, "whole words need word_starts: let the objective's `uses` hold 'words'"
        word = (word_starts | (place == 1)).cumsum(1).clamp(max=t - 1)  # (b, t): the word that each token belongs to
        score = score.gather(1, word)
    else:
        word = place.expand(b, t)
    order = torch.where(inside, score, 2.0).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, place.expand(b, t))
    first = rank.scatter_reduce(1, word, rank.masked_fill(~inside, t), "amin", include_self=False)
    masked = inside & (first.gather(1, word) < count)
    kind = uniform(keys, "kind of mask", t)
    drawn = (uniform(keys, "random tokens", t) * vocab_size).long()
    corrupted = torch.where(kind < config.replaced + config.random, drawn, tokens)
    corrupted = torch.where(kind < config.replaced, mask_id, corrupted)
    return MaskedTokens(torch.where(masked, corrupted, tokens), masked)
