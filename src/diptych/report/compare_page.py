"""The page of a comparison of two models: verdicts, differences with their intervals, and every test in a table."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from diptych.report.compare_table import numbers
from diptych.report.page import Html, Page, card, cards, note, table
from diptych.report.terminal import is_share

Json = Mapping[str, Any]

TONES = {"better": "good", "worse": "bad", "indistinguishable": "", "": ""}
LEFT, MIDDLE, RIGHT, ROW = 210, 380, 190, 26


def compare_page(found: Json) -> str:
    """The page of a comparison, as `to_dict` of it gives it."""
    a, b = found["a"], found["b"]
    page = Page(f"{a} against {b}", escape(", ".join(dict.fromkeys(_where(r) for r in found["rows"]))))
    heads = [row for row in found["rows"] if row["family"] == "headline"]
    page.section(
        "At a glance",
        cards(*(_card(row) for row in heads)),
        lead=f"Is {escape(a)} better than {escape(b)}? The headline metric of each task, tested on the same items.",
    )
    said = [(row["task"], row["metric"], row["words"]) for row in heads]
    page.section("In words", table(said, ("task", "metric", f"{a} is")))
    for (task, data, split), group in groupby(found["rows"], key=lambda r: (r["task"], r["data"], r["split"])):
        rows = list(group)
        page.section(f"{task}: {Path(data).name}, {split}" if data else f"{task}: {split}", *_task(rows, a, b))
    left = [(one["task"], one["why"]) for one in found["not_compared"]]
    page.section("Not compared", table(left, ("task", "why")))
    page.section("How to read this", *(note(text) for text in found["notes"]))
    return page.render()


def difference_chart(rows: Sequence[Json], percent: bool) -> str:
    """Differences as dots with their intervals on both sides of 0: right of it, a has more."""
    tested = [r for r in rows if r["low"] is not None]
    if not tested:
        return ""
    scale, unit = (100, "points") if percent else (1, "")
    most = max(max(abs(r["low"]), abs(r["high"])) for r in tested) * scale or 1.0
    height, centre = len(tested) * ROW + 26, LEFT + MIDDLE / 2

    def px(value: float) -> float:
        return centre + value * scale / most * MIDDLE / 2

    parts = []
    for tick in (-1.0, -0.5, 0.0, 0.5, 1.0):
        x = centre + tick * MIDDLE / 2
        css = "reference" if tick == 0 else "grid"
        parts.append(f'<line class="{css}" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 20}"/>')
        label = f"{tick * most:+.2g} {unit}" if tick else "0"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{label.strip()}</text>')
    for i, row in enumerate(tested):
        y = 16 + i * ROW
        _, _, difference, ends, *_ = numbers(row)
        parts.append(
            f'<text class="label" x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(row["metric"])}</text>'
        )
        parts.append(
            f'<line class="whisker" x1="{px(row["low"]):.1f}" x2="{px(row["high"]):.1f}" y1="{y}" y2="{y}">'
            f"<title>{escape(row['words'])}</title></line>"
        )
        parts.append(f'<circle class="estimate" cx="{px(row["difference"]):.1f}" cy="{y}" r="4.5"/>')
        parts.append(f'<text class="value" x="{LEFT + MIDDLE + 24}" y="{y + 4}">{difference} [{ends}]</text>')
    box = f"0 0 {LEFT + MIDDLE + RIGHT} {height}"
    return f'<figure class="chart wide"><svg viewBox="{box}" role="img">{"".join(parts)}</svg></figure>'


def _task(rows: Sequence[Json], a: str, b: str) -> list[str]:
    shares, others = ([r for r in rows if is_share(r["metric"]) == which] for which in (True, False))
    charts = [difference_chart(shares, True), difference_chart(others, False)]
    cells = [
        (Html(f"<b>{escape(r['metric'])}</b>") if r["family"] == "headline" else r["metric"], *numbers(r), r["words"])
        for r in rows
    ]
    head = ("metric", a, b, "difference", "95 % interval", "p", "Holm", "n", f"{a} is")
    return [*charts, table(cells, head, numeric=range(1, 8))]


def _card(row: Json) -> str:
    a, b, difference, *_ = numbers(row)
    points = " points" if is_share(row["metric"]) else ""
    detail = f"{a} against {b}: {row['verdict']}"
    return card(f"{row['task']}: {row['metric']}", f"{difference}{points}", detail, TONES[row["verdict"]])


def _where(row: Json) -> str:
    return f"{row['data']} ({row['split']})" if row["data"] else row["split"]
