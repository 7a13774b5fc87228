"""A value of the record's meta that is too low, too high, or not wanted: whatever the table brought along.

LAION's columns come so: punsafe (most = 0.5), NSFW (unwanted = ["NSFW", "UNSURE"]), pwatermark (most = 0.8),
AESTHETIC_SCORE (least = 5); a licence too (field = "collected.licence").
"""

import math
from typing import Any, Literal

from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field, model_validator

from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig


class MetaValueConfig(FilterConfig):
    """Which value, and what it may be, both ends included.

    field      its name; one within another is field.name
    least, most       of a number, or of the text of one
    wanted, unwanted  of texts: if any are wanted, only these stay; upper and lower case are alike
    without    what becomes of a record that has no such value, or with `least` or `most` one that is no number
    """

    field: str = Field(min_length=1)
    least: float | None = Field(default=None, allow_inf_nan=False)
    most: float | None = Field(default=None, allow_inf_nan=False)
    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    without: Literal["keep", "drop"] = "drop"

    @model_validator(mode="after")
    def _says_something(self) -> "MetaValueConfig":
        if self.least is None and self.most is None and not self.wanted and not self.unwanted:
            raise ValueError("MetaValueConfig must have least, most, wanted or unwanted; got none. Set one: most = 0.5")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"MetaValueConfig.least must be at most {self.most}; got {self.least}. Swap them.")
        return self

    def build(self) -> "MetaValue":
        """The filter."""
        return MetaValue(self)


class MetaValue(Filter):
    """Reasons: value_too_low, value_too_high, unwanted_value, no_value."""

    def __init__(self, config: MetaValueConfig) -> None:
        self.config = config
        self.wanted = frozenset(text.casefold() for text in config.wanted)
        self.unwanted = frozenset(text.casefold() for text in config.unwanted)

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """The first that is so."""
        return [self._reason(_at(rows.meta(i), self.config.field)) if alive[i] else "" for i in range(len(rows))]

    def _reason(self, value: Any) -> str:
        c, missing = self.config, "no_value" if self.config.without == "drop" else ""
        if value is None or value == "":
            return missing
        text = str(value).strip().casefold()
        if text in self.unwanted or (self.wanted and text not in self.wanted):
            return "unwanted_value"
        if c.least is None and c.most is None:
            return ""
        number = _number(value)
        if number is None:
            return missing
        if c.least is not None and number < c.least:
            return "value_too_low"
        return "value_too_high" if c.most is not None and number > c.most else ""


def _at(meta: dict[str, Any], field: str) -> Any:
    """The value called `field`, or within others if no field has the whole name."""
    if field in meta:
        return meta[field]
    value: Any = meta
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
