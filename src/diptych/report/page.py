"""A self-contained HTML page: sections, tables, cards and figures, with style and pictures inside the one file."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any


class Page:
    """Collects sections in order; `render` returns the whole page. Opening it loads nothing else."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self.sections: list[tuple[str, str, str]] = []

    def section(self, name: str, *parts: str, lead: str = "") -> None:
        """Add a section; empty parts are dropped and a section without any part is left out."""
        body = "".join(p for p in parts if p)
        if body:
            intro = f'<p class="lead">{lead}</p>' if lead else ""
            self.sections.append((f"s{len(self.sections)}", name, intro + body))

    def render(self) -> str:
        """The page as HTML."""
        style = (files("diptych.report") / "assets" / "page.css").read_text()
        menu = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in self.sections)
        body = "".join(
            f'<section id="{key}"><h2>{escape(name)}</h2>{html}</section>' for key, name, html in self.sections
        )
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head><body>'
            f'<header><p class="brand">Diptych</p><h1>{escape(self.title)}</h1><p class="subtitle">{self.subtitle}</p>'
            f"<nav>{menu}</nav></header><main>{body}</main></body></html>\n"
        )


def card(label: str, value: str, detail: str = "", tone: str = "") -> str:
    """A number in a box."""
    return (
        f'<div class="card {tone}"><span class="label">{escape(label)}</span>'
        f'<span class="number">{escape(value)}</span>'
        f'<span class="detail">{escape(detail)}</span></div>'
    )


def cards(*items: str) -> str:
    """Boxes side by side."""
    return f'<div class="cards">{"".join(items)}</div>' if items else ""


def columns(*items: str) -> str:
    """Figures side by side, wrapping where the window is narrow."""
    return f'<div class="columns">{"".join(i for i in items if i)}</div>'


def table(rows: Sequence[Sequence[Any]], head: Sequence[str] = (), numeric: Sequence[int] = ()) -> str:
    """A table of text cells; columns in `numeric` are aligned right. Cells are escaped unless they are `Html`."""
    if not rows:
        return ""

    def cell(i: int, value: Any, tag: str = "td") -> str:
        css = ' class="num"' if i in numeric else ""
        return f"<{tag}{css}>{value if isinstance(value, Html) else escape(str(value))}</{tag}>"

    header = f"<thead><tr>{''.join(cell(i, h, 'th') for i, h in enumerate(head))}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(cell(i, v) for i, v in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table>{header}<tbody>{body}</tbody></table></div>'


class Html(str):
    """Text that is already HTML."""


def settings_table(values: Mapping[str, Any]) -> str:
    """Names and values of settings, grouped by their first word."""
    return table([(k, _shown(v)) for k, v in values.items()], head=("setting", "value"))


def details(summary: str, html: str) -> str:
    """A part that is closed until it is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>" if html else ""


def note(text: str, advice: str = "", severity: str = "note", when: str = "") -> str:
    """What the doctor said."""
    return (
        f'<div class="note {escape(severity)}"><span class="severity">{escape(severity)}</span>'
        f'<div><p>{escape(text)} <span class="when">{escape(when)}</span></p>'
        f'<p class="advice">{escape(advice)}</p></div></div>'
    )


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(str(v) for v in value) or "(none)"
    return str(value)
