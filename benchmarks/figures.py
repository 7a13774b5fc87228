"""The arithmetic of a comparison: medians, extremes, ratios taken pair by pair, and the table that shows them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Series:
    """What one side showed, a value a turn. `unit` is for the reader; more is better unless `lower`."""

    name: str
    values: tuple[float, ...]
    unit: str = "samples/s"
    lower: bool = False

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def best(self) -> float:
        """The value of the least disturbed turn."""
        return min(self.values) if self.lower else max(self.values)


@dataclass(frozen=True)
class Ratio:
    """How many times better ours is, turn by turn: the median of the ratios, and the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Series, theirs: Series) -> "Ratio":
        """From turns that lay side by side. Above 1: ours is better, whichever way better is."""
        if len(ours.values) != len(theirs.values) or ours.lower != theirs.lower:
            raise ValueError(f"{ours.name} and {theirs.name} must have taken equally many turns at the same thing")
        pairs = zip(ours.values, theirs.values, strict=True)
        found = [(b / a if ours.lower else a / b) for a, b in pairs]
        return cls(statistics.median(found), min(found), max(found))

    def __str__(self) -> str:
        return f"{number(self.median)}x ({number(self.low)} to {number(self.high)})"


@dataclass(frozen=True)
class Comparison:
    """One row of a result: the best of our variants against the best of the peer's, and the target."""

    what: str
    ours: tuple[Series, ...]
    theirs: tuple[Series, ...] = ()
    target: float | None = None
    meant: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def ratio(self) -> Ratio | None:
        """Ours against theirs, each side with the variant whose median is best. None where one side is absent."""
        mine, other = best_of(self.ours), best_of(self.theirs)
        return Ratio.of(mine, other) if mine and other else None

    @property
    def verdict(self) -> str:
        """What the target says of the ratio."""
        ratio = self.ratio
        if ratio is None or self.target is None:
            return ""
        if self.meant is not None and ratio.median >= self.meant:
            return "as meant"
        return "reached" if ratio.median >= self.target else "NOT REACHED"


def best_of(series: Sequence[Series]) -> Series | None:
    """The variant with the best median."""
    if not series:
        return None
    return min(series, key=lambda s: s.median) if series[0].lower else max(series, key=lambda s: s.median)


def number(value: float) -> str:
    """A value with three digits that mean something."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if size >= 0.001 else f"{value:.3g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned so that it also reads in a terminal."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = ["| " + " | ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    head = "| " + " | ".join(c.ljust(w) for c, w in zip(header, widths, strict=True)) + " |"
    return "\n".join([head, "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines])


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """A line for each side's variants, and the ratio with its verdict on the first line of each comparison."""
    rows = []
    for c in comparisons:
        winners = {id(best_of(c.ours)), id(best_of(c.theirs))}
        ratio, target = c.ratio, "" if c.target is None else f">= {number(c.target)}x"
        for place, s in enumerate((*c.ours, *c.theirs)):
            first = place == 0
            many = len(c.ours) + len(c.theirs) > 2
            rows.append(
                (
                    c.what if first else "",
                    s.name + (" *" if many and id(s) in winners else ""),
                    f"{number(s.median)} {s.unit}",
                    number(s.best),
                    (str(ratio) if ratio else "-") if first else "",
                    target if first else "",
                    c.verdict if first else "",
                )
            )
    return table(("what", "side", "median", "best", "ratio, turn by turn", "target", ""), rows)
