"""Captions of too few or too many words or characters."""

from typing import Literal

from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig


class CaptionLengthConfig(FilterConfig):
    """Limits of a caption's length, both ends included; 0: no upper one.

    words are what whitespace parts; characters are counted as they are. `of`: the "first" caption alone must be
    within them, or "any" of a record's captions.
    """

    min_words: int = Field(default=0, ge=0)
    max_words: int = Field(default=0, ge=0)
    min_characters: int = Field(default=0, ge=0)
    max_characters: int = Field(default=0, ge=0)
    of: Literal["first", "any"] = "first"

    def build(self) -> "CaptionLength":
        """The filter."""
        return CaptionLength(self)


class CaptionLength(Filter):
    """Reasons: no_caption, short_caption, long_caption."""

    def __init__(self, config: CaptionLengthConfig) -> None:
        self.config = config

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """The reason of the first caption where none fits."""
        return [self._of(captions) for captions in rows.captions]

    def _of(self, captions: list[str]) -> str:
        if not captions:
            return "no_caption"
        found = [self._one(c) for c in (captions[:1] if self.config.of == "first" else captions)]
        return "" if "" in found else found[0]

    def _one(self, text: str) -> str:
        c, words = self.config, len(text.split())
        if words < c.min_words or len(text) < c.min_characters:
            return "short_caption"
        if (c.max_words and words > c.max_words) or (c.max_characters and len(text) > c.max_characters):
            return "long_caption"
        return ""
