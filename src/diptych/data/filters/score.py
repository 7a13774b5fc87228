"""A score that is high enough: by a threshold, or among the best of the pool."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field, model_validator

from diptych.data.candidates import CandidatePool, Rows
from diptych.data.filters.filter import Filter, FilterConfig


class ScoreConfig(FilterConfig):
    """Which scores, and how high they must be.

    score      the name under which they were written
    threshold  the lowest that stays; None: `fraction` decides
    fraction   the share of the records left so far that stays, the best ones. DataComp's rule: the threshold is the
               floor(n f)-th of the scores in descending order, counted from 0, and what ties with it stays; with 1 all
    """

    score: str = "quality"
    threshold: float | None = None
    fraction: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> "ScoreConfig":
        if self.threshold is not None and self.fraction < 1:
            raise ValueError(
                f"ScoreConfig must have a threshold or a fraction; got {self.threshold} and {self.fraction}. Drop one."
            )
        return self

    def build(self) -> "Score":
        """The filter."""
        return Score(self)


class Score(Filter):
    """Reasons: low_score; no_score where it is not a number."""

    gathers: ClassVar[bool] = True

    def __init__(self, config: ScoreConfig) -> None:
        self.config = config
        self.threshold = -np.inf if config.threshold is None else config.threshold

    def gather(self, rows: Rows, alive: Bool[ndarray, " n"]) -> Any:
        """The scores of those that are left, where the best of them are wanted."""
        if self.config.fraction == 1:
            return None
        found = rows.scores(self.config.score)[alive]
        return found[~np.isnan(found)].astype(np.float32)

    def settle(self, gathered: Iterator[Any], pool: CandidatePool, folder: Path) -> None:
        """Four bytes a record are held: of a billion records, four gigabytes."""
        parts = [part for part in gathered if part is not None]
        if self.config.fraction == 1 or not sum(map(len, parts)):
            return
        scores = np.concatenate(parts)
        place = int(len(scores) * self.config.fraction)  # in descending order
        self.threshold = float(np.partition(scores, len(scores) - 1 - place)[len(scores) - 1 - place])

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """What lies below the threshold."""
        scores = rows.scores(self.config.score).astype(np.float32)
        said = np.where(scores < np.float32(self.threshold), "low_score", "")
        return list(np.where(np.isnan(scores), "no_score", said))
