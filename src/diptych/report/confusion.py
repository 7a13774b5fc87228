"""Zero-shot results by class: the confusion matrix, recall of each class, and what the prompts were worth."""

from collections.abc import Sequence
from html import escape
from typing import Any

from diptych.report.page import Html, columns, table
from diptych.report.plots import Whisker, heatmap, interval_chart

MOST_NUMBERED = 20
"""Beyond so many classes the matrix is a picture without numbers."""


def confusion_section(artifacts: dict[str, Any]) -> str:
    """The part of the report that shows a classification; empty where there is none."""
    confusion = artifacts.get("confusion")
    if not confusion:
        return ""
    classes, matrix = confusion["classes"], confusion["matrix"]
    parts = [
        "<h3>Confusion</h3><p class='lead'>Rows are true classes, columns what the model said, in % of the row.</p>"
    ]
    parts.append(_numbered(classes, matrix) if len(classes) <= MOST_NUMBERED else heatmap(_shares(matrix)))
    per_class = artifacts.get("per_class") or []
    if per_class:
        rows = [
            Whisker(f"{c['name']} ({c['n']:,})", c["recall"], c["low"], c["high"], c.get("chance")) for c in per_class
        ]
        rows.sort(key=lambda r: r.value)
        shown = rows if len(rows) <= 40 else rows[:20] + rows[-20:]
        parts.append("<h3>Recall by class</h3>" + interval_chart(shown))
    prompts = artifacts.get("prompts") or []
    if prompts:
        whiskers = [Whisker(p["name"], p["value"], p["low"], p["high"], p.get("chance")) for p in prompts]
        parts.append("<h3>Ensemble of prompts against single ones</h3>" + interval_chart(whiskers))
    worst = _pairs(classes, matrix)
    if worst:
        parts.append(
            "<h3>Most often taken for another</h3>" + columns(table(worst, ("true", "said", "times"), numeric=(2,)))
        )
    return "".join(parts)


def _shares(matrix: Sequence[Sequence[float | int]]) -> list[list[float]]:
    return [[v / (sum(row) or 1) for v in row] for row in matrix]


def _numbered(classes: list[str], matrix: Sequence[Sequence[float | int]]) -> str:
    head = "".join(f"<th>{escape(str(c))}</th>" for c in classes)
    body = []
    for name, row in zip(classes, _shares(matrix), strict=True):
        cells = "".join(
            f'<td style="background: rgba(0, 95, 165, {0.08 + 0.92 * v:.2f}); '
            f'{"" if v > 0.35 else "color: var(--soft)"}">'
            f"{100 * v:.0f}</td>"
            for v in row
        )
        body.append(f'<tr><th class="row">{escape(str(name))}</th>{cells}</tr>')
    return f'<div class="scroll"><table class="confusion"><tr><th></th>{head}</tr>{"".join(body)}</table></div>'


def _pairs(classes: list[str], matrix: Sequence[Sequence[float | int]], most: int = 12) -> list[tuple[Any, Any, Html]]:
    wrong = [
        (matrix[i][j], classes[i], classes[j])
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j and matrix[i][j]
    ]
    return [(a, b, Html(f"{n:,.0f}")) for n, a, b in sorted(wrong, key=lambda w: -w[0])[:most]]
