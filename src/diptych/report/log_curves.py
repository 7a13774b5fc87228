"""Curves over a logarithmic axis as an SVG that stands by itself: for documents, where no style sheet colours it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Number = float | int

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 36, 48
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Told apart by colour-blind readers too (Okabe and Ito, 2008); they stand on light and on dark grounds."""


@dataclass(frozen=True)
class Curve:
    """A line with the band of its spread around it."""

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    low: Sequence[Number]
    high: Sequence[Number]


def log_curves(curves: Sequence[Curve], title: str, x_label: str, y_label: str, chance: Number | None = None) -> str:
    """A chart of shares (0 to 1, drawn in percent) against positive numbers on a logarithmic axis."""
    xs = [math.log10(x) for c in curves for x in c.x]
    x0, x1 = min(xs), max(xs)
    x1 = x1 if x1 > x0 else x0 + 1
    top = max([*(y for c in curves for y in c.high), chance or 0.0, 0.01]) * 1.08

    def at(x: Number, y: Number) -> str:
        px = LEFT + (math.log10(x) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return f"{px:.1f},{HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [_text(WIDTH / 2, 20, title, "middle", 14)]
    step = next(s for s in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if top / s <= 7)
    for i in range(int(top / step) + 1):
        y = HEIGHT - BOTTOM - i * step / top * (HEIGHT - TOP - BOTTOM)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{i * step:.3g}" if step < 0.01 else f"{i * step:.0%}", "end"))
    for x in sorted({x for c in curves for x in c.x}):
        parts.append(_text(float(at(x, 0).partition(",")[0]), HEIGHT - BOTTOM + 16, _short(x), "middle"))
    if chance is not None:
        a, b = at(10**x0, chance), at(10**x1, chance)
        parts.append(f'<polyline points="{a} {b}" fill="none" stroke="#888" stroke-dasharray="4 4"/>')
        px, py = (float(v) for v in b.split(","))
        parts.append(_text(px, py - 4, "chance", "end"))
    for i, c in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        band = " ".join([*(at(*p) for p in zip(c.x, c.high, strict=True))][::-1])
        band = " ".join(at(*p) for p in zip(c.x, c.low, strict=True)) + " " + band
        line = " ".join(at(*p) for p in zip(c.x, c.y, strict=True))
        parts.append(f'<polygon points="{band}" fill="{colour}" fill-opacity="0.15"/>')
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = TOP + 14 + 18 * i
        parts.append(f'<line x1="{LEFT + 12}" x2="{LEFT + 36}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(LEFT + 42, y + 4, c.name, "start"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_label, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="16" y="{middle}" font-size="12" fill="#777" text-anchor="middle" '
        f'transform="rotate(-90 16 {middle})">{escape(y_label)}</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>\n'
    )


def _text(x: Number, y: Number, words: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="#777" text-anchor="{anchor}">{escape(words)}</text>'


def _short(x: Number) -> str:
    return f"{x / 1e6:.3g}M" if x >= 1e6 else f"{x / 1e3:.3g}k" if x >= 1e3 else f"{x:.3g}"
