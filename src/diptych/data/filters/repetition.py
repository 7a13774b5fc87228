"""Captions that say the same over and over: the share of their n-grams that are repeated.

The measures are those of ROOTS (Laurencon et al., 2022, arXiv:2303.03915), which OBELICS takes over (Laurencon et al.,
2023, arXiv:2306.16527).
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from math import isqrt
from typing import Literal

from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig

THRESHOLDS = {"obelics_paragraph": (0.1, 0.1), "obelics_document": (0.2, 1.0), "none": (1.0, 1.0)}
"""name -> (largest share of repeated words, of repeated characters); of characters in documents there is no rule."""


class RepetitionConfig(FilterConfig):
    """Which shares are too large.

    thresholds               by name, for the two that are not given
    max_words                the largest share of word n-grams that occur more than once
    max_characters           the largest share of the commonest character n-grams
    word_n, character_n      the n of each; a text with fewer has a share of 0
    """

    thresholds: Literal["obelics_paragraph", "obelics_document", "none"] = "obelics_paragraph"
    max_words: float | None = Field(default=None, ge=0, le=1)
    max_characters: float | None = Field(default=None, ge=0, le=1)
    word_n: int = Field(default=5, ge=1)
    character_n: int = Field(default=10, ge=1)

    def build(self) -> "Repetition":
        """The filter."""
        return Repetition(self)


class Repetition(Filter):
    """Reasons: repeated_words, repeated_characters. The first caption is judged."""

    def __init__(self, config: RepetitionConfig) -> None:
        self.config = config
        words, characters = THRESHOLDS[config.thresholds]
        self.max_words = words if config.max_words is None else config.max_words
        self.max_characters = characters if config.max_characters is None else config.max_characters

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """The first share that is too large."""
        return [self._of(text) for text in rows.texts]

    def _of(self, text: str) -> str:
        if word_repetition(text, self.config.word_n) > self.max_words:
            return "repeated_words"
        if character_repetition(text, self.config.character_n) > self.max_characters:
            return "repeated_characters"
        return ""


def word_repetition(text: str, n: int) -> float:
    """The share of a text's word n-grams, in lower case, that occur more than once."""
    words = text.lower().split()
    counts = _counts(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return sum(c for c in counts if c > 1) / max(sum(counts), 1)


def character_repetition(text: str, n: int) -> float:
    """The share of a text's character n-grams that the commonest ones have: of k different ones the floor(sqrt(k))
    most frequent, but none that occurs once."""
    counts = _counts(text[i : i + n] for i in range(len(text) - n + 1))
    commonest = sorted(counts, reverse=True)[: isqrt(len(counts))]
    return sum(c for c in commonest if c > 1) / max(sum(counts), 1)


def _counts(grams: Iterable[Hashable]) -> list[int]:
    return list(Counter(grams).values())
