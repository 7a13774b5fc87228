"""A score that is one of a list of whole numbers: clusters that are wanted, classes, labels."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from diptych.core.errors import ConfigError
from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig


class InListConfig(FilterConfig):
    """Which scores, and which of their values stay: those of `values` or of the `file`, a whole number a line.

    Scores are kept as float32, which has every whole number up to 16,777,216.
    """

    score: str = "quality"
    values: tuple[int, ...] = ()
    file: str = ""

    def build(self) -> "InList":
        """The filter. Raises ConfigError without a list."""
        return InList(self)


class InList(Filter):
    """Reasons: not_in_list; no_score where it is not a number."""

    def __init__(self, config: InListConfig) -> None:
        self.config = config
        self.values: Int64[ndarray, " m"] = np.unique(np.array(_values(config), dtype=np.int64))

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """By each one's value."""
        scores = rows.scores(self.config.score)
        said = np.where(np.isin(scores, self.values.astype(np.float64)), "", "not_in_list")
        return list(np.where(np.isnan(scores), "no_score", said))


def _values(config: InListConfig) -> list[int]:
    if bool(config.values) == bool(config.file):
        raise ConfigError(
            f"InListConfig must have values or a file of them, and not both; got {config.values} and "
            f"{config.file or 'no file'}. Set one: values = [3, 17]"
        )
    if config.values:
        return list(config.values)
    try:
        found = [int(line) for line in Path(config.file).read_text().split()]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"InListConfig.file must be a text file with a whole number a line; got {config.file} ({error}). Write the "
            "numbers that shall stay into it, or point to another."
        ) from None
    if not found:
        raise ConfigError(f"InListConfig.file must hold numbers; {config.file} is empty.")
    return found
