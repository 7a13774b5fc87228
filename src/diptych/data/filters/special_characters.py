"""Captions that are more signs than words."""

import unicodedata
from typing import Literal

from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig

THRESHOLDS = {"obelics_paragraph": 0.3, "obelics_document": 0.275}


class SpecialCharactersConfig(FilterConfig):
    """Which share is too large.

    thresholds  by name, for a `max_share` that is not given. OBELICS's are of paragraphs of running text; titles and
                lists of keywords have more signs, 0.5 is for them
    max_share   the largest share of a caption's characters that are neither letters nor marks upon letters: digits,
                punctuation, symbols, and spaces, which OBELICS counts too
    """

    thresholds: Literal["obelics_paragraph", "obelics_document"] = "obelics_paragraph"
    max_share: float | None = Field(default=None, ge=0, le=1)

    def build(self) -> "SpecialCharacters":
        """The filter."""
        return SpecialCharacters(self)


class SpecialCharacters(Filter):
    """Reason: special_characters. The first caption is judged; of none, nothing is said."""

    def __init__(self, config: SpecialCharactersConfig) -> None:
        self.max_share = THRESHOLDS[config.thresholds] if config.max_share is None else config.max_share

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """By the share."""
        return ["special_characters" if special_share(t) > self.max_share else "" for t in rows.texts]


def special_share(text: str) -> float:
    """The share of a text's characters that are neither letters nor marks, of any script; 0 of an empty one."""
    return sum(not (c.isalpha() or unicodedata.category(c).startswith("M")) for c in text) / max(len(text), 1)
