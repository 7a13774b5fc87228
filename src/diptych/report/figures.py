"""Figures as values: an eval says what is to be shown, keeps it as JSON, and any page draws it. A kind is a class here.

An eval puts them into `EvalResult.figures`; nothing else has to know of a new eval for its results to be seen.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, ClassVar, Literal

from pydantic import Field

from diptych.core.config import Config, from_dict
from diptych.report.grids import picture
from diptych.report.page import details, table
from diptych.report.plots import Series, Whisker, heatmap, histogram, interval_chart, line_chart
from diptych.report.reliability import reliability_chart

MOST_NUMBERED = 20
"""Beyond so many columns a matrix is a picture without numbers."""


class Figure(Config):
    """Something to be looked at: a heading, a sentence that says how to read it, and what `body` draws."""

    abstract: ClassVar[bool] = True
    title: str
    words: str = ""

    def html(self) -> str:
        """The figure under its heading."""
        lead = f"<p class='lead'>{escape(self.words)}</p>" if self.words else ""
        return f"<h3>{escape(self.title)}</h3>{lead}{self.body()}"

    @abstractmethod
    def body(self) -> str:
        """What stands below the heading."""


class Lines(Figure):
    """Curves over one axis: severities, ranks, thresholds. `references`: dashed levels with their names."""

    x: tuple[float, ...]
    series: dict[str, tuple[float, ...]]
    x_label: str
    y_label: str
    references: dict[str, float] = Field(default_factory=dict)

    def body(self) -> str:
        """A line chart."""
        lines = [Series(name, self.x, y) for name, y in self.series.items()]
        return line_chart(lines, self.y_label, self.x_label, references=list(self.references.items()))


class Interval(Config):
    """A row of `Intervals`; `chance` None: not known."""

    name: str
    value: float
    low: float
    high: float
    chance: float | None = None
    n: int = 0


class Intervals(Figure):
    """Estimates with their intervals, one below the other: groups, classes, tests."""

    rows: tuple[Interval, ...]
    percent: bool = True

    def body(self) -> str:
        """Dots with whiskers."""
        return interval_chart(
            [Whisker(r.name, r.value, r.low, r.high, r.chance, r.n) for r in self.rows], percent=self.percent
        )


class Matrix(Figure):
    """Numbers by row and column: small ones as a table, large ones as a picture."""

    values: tuple[tuple[float, ...], ...]
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    digits: int = 2

    def body(self) -> str:
        """A table of up to MOST_NUMBERED columns, else a heat map."""
        if len(self.column_names) > MOST_NUMBERED:
            return heatmap(self.values)
        rows = [
            (name, *(f"{v:.{self.digits}f}" for v in row))
            for name, row in zip(self.row_names, self.values, strict=True)
        ]
        return table(rows, ("", *self.column_names), numeric=range(1, len(self.column_names) + 1))


class Histogram(Figure):
    """Counts in bins; `starts` are where the bins begin."""

    starts: tuple[float, ...]
    counts: tuple[float, ...]
    x_label: str

    def body(self) -> str:
        """Bars."""
        return histogram(self.starts, self.counts, self.x_label)


class Words(Figure):
    """A table of words and numbers; `numeric` columns are aligned right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    shown: int = 20
    """So many rows are open, the others behind a click."""

    def body(self) -> str:
        """The table."""
        first = table(self.rows[: self.shown], self.head, self.numeric)
        rest = table(self.rows[self.shown :], self.head, self.numeric)
        return first + details(f"{len(self.rows) - self.shown} more", rest)


class Picture(Config):
    """An image with what is said of it. `image`: a JPEG or PNG in base64; `verdict` frames it."""

    image: str
    caption: str
    detail: str = ""
    verdict: Literal["", "right", "wrong"] = ""


class Pictures(Figure):
    """A sheet of pictures."""

    pictures: tuple[Picture, ...]
    shown: int = 12

    def body(self) -> str:
        """The sheet."""
        first, rest = self.pictures[: self.shown], self.pictures[self.shown :]
        return _sheet(first) + details(f"{len(rest)} more", _sheet(rest))


class Bin(Config):
    """Answers of about one confidence: how many, their mean confidence, and the share that was right."""

    n: int
    confidence: float
    accuracy: float


class Reliability(Figure):
    """Accuracy against confidence (a reliability diagram)."""

    bins: tuple[Bin, ...]

    def body(self) -> str:
        """The diagram."""
        return reliability_chart([{"n": b.n, "confidence": b.confidence, "accuracy": b.accuracy} for b in self.bins])


def figure_html(value: Mapping[str, Any]) -> str:
    """A figure out of a result's JSON, drawn."""
    figure: Figure = from_dict(dict(value))
    return figure.html()


def _sheet(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    body = "".join(picture(p.image, " - ".join(filter(None, (p.caption, p.detail))), p.verdict, 140) for p in pictures)
    return f'<div class="sheet">{body}</div>'
