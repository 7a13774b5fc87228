"""Images that fit their caption by the letters painted on them alone: T-MARS (Maini et al., 2023, arXiv:2307.03132).

The score comes from elsewhere: text is found in each image and painted over with the colour around it, and the
similarity of the caption and what is left of the image is written as scores. Of the pool the better half stays. No
finder of text comes with the house.
"""

from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.data.candidates import Rows
from diptych.data.filters.filter import FilterConfig
from diptych.data.filters.score import Score, ScoreConfig


class TextOverlapConfig(FilterConfig):
    """The scores of the painted-over images, and the share of the records left so far that stays, the best ones."""

    score: str = "masked_clip"
    fraction: float = Field(default=0.5, gt=0, le=1)

    def build(self) -> "TextOverlap":
        """The filter."""
        return TextOverlap(ScoreConfig(score=self.score, fraction=self.fraction))


class TextOverlap(Score):
    """Reasons: text_overlap; no_score where it is not a number. The share is taken as `Score` takes it."""

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """What lies below the threshold."""
        return ["text_overlap" if r == "low_score" else r for r in super().reasons(rows, alive)]
