"""A share of the records by lot."""

from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.core.seeds import fold
from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig


class SampleConfig(FilterConfig):
    """The chance that a record stays, and the seed of the draws."""

    share: float = Field(default=0.5, gt=0, le=1)
    seed: int = 0

    def build(self) -> "Sample":
        """The filter."""
        return Sample(self)


class Sample(Filter):
    """Reason: not_sampled. The draw is a hash of seed and uid: whatever else the pool holds the same records stay, and
    a larger share holds every smaller one. The share is kept on average; exactly so many: `Selection.sample`."""

    def __init__(self, config: SampleConfig) -> None:
        self.config = config

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """By each record's draw."""
        seed, limit = self.config.seed, self.config.share * 2**63
        return ["" if fold(seed, "sample", u.tobytes().hex()) < limit else "not_sampled" for u in rows.uids]
