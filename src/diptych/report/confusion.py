"""Zero-shot results by class: the confusion matrix, recall of each class, and what the prompts were worth."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from diptych.report.grids import contact_sheet
from diptych.report.page import Html, columns, table
from diptych.report.plots import Whisker, heatmap, interval_chart
from diptych.report.reliability import reliability_chart

MOST_NUMBERED = 20
"""Beyond so many classes the matrix is a picture without numbers."""


def confusion_section(artifacts: dict[str, Any]) -> str:
    """The part of the report that shows a classification; empty where there is none. Each artifact may be missing: of
    many classes there is no matrix."""
    parts = []
    confusion = artifacts.get("confusion")
    if confusion:
        classes, matrix = confusion["classes"], confusion["matrix"]
        parts.append(
            "<h3>Confusion</h3><p class='lead'>Rows are true classes, columns what the model said, in % of the row.</p>"
        )
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
        against = _against(artifacts.get("ensemble_against") or {})
        parts.append("<h3>Ensemble of prompts against single ones</h3>" + interval_chart(whiskers) + against)
    parts.append(reliability_chart(artifacts.get("calibration") or ()))
    worst = _worst(artifacts)
    if worst:
        parts.append(
            "<h3>Most often taken for another</h3>" + columns(table(worst, ("true", "said", "times"), numeric=(2,)))
        )
    parts.append(_mistakes(artifacts.get("mistakes") or ()))
    return "".join(parts)


def _against(tests: Mapping[str, Mapping[str, Any]]) -> str:
    """Each paired test in a sentence: what the ensemble gains over one prompt on the same images."""
    said = []
    for name, test in tests.items():
        words = {"better": "does better than", "worse": "does worse than"}.get(
            str(test["verdict"]), "cannot be told apart from"
        )
        said.append(
            f"<li>The ensemble <b>{words}</b> the {escape(name.replace('_', ' '))}: "
            f"{100 * test['difference']:+.1f} points "
            f"[{100 * test['low']:+.1f}, {100 * test['high']:+.1f}], p = {test['p_value']:.2g}</li>"
        )
    lead = (
        "<p class='lead'>Compared on the same images, which tells smaller differences apart than two intervals do.</p>"
    )
    return f"{lead}<ul>{''.join(said)}</ul>" if said else ""


def _mistakes(mistakes: Sequence[Mapping[str, Any]]) -> str:
    """The surest of the wrong answers, with pictures."""
    if not mistakes:
        return ""
    items = []
    for one in mistakes:
        sure = one.get("confidence")
        words = f"{one['predicted']}{'' if sure is None else f' ({sure:.0%})'}, but it is {one['class']}"
        items.append({"thumb": one.get("thumb", ""), "caption": words})
    lead = "<p class='lead'>What the model was surest of and wrong. Look here for wrong labels first.</p>"
    return f"<h3>The surest mistakes</h3>{lead}{contact_sheet(items, size=110)}"


def _worst(artifacts: Mapping[str, Any]) -> list[tuple[Any, Any, Html]]:
    listed = artifacts.get("top_confusions")
    if listed:
        return [(one["class"], one["predicted"], Html(f"{one['count']:,}")) for one in listed[:12]]
    confusion = artifacts.get("confusion")
    return _pairs(confusion["classes"], confusion["matrix"]) if confusion else []


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
