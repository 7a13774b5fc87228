"""Charts as inline SVG, coloured by the page's style sheet: no script library, sharp at any size, fit for the dark."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

Number = float | int

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 70, 14, 12, 40


@dataclass(frozen=True)
class Series:
    """One line of a chart; points whose y is not finite are left out."""

    name: str
    x: Sequence[Number]
    y: Sequence[Number]

    def points(self) -> list[tuple[float, float]]:
        """The finite points, in order."""
        return [(float(a), float(b)) for a, b in zip(self.x, self.y, strict=True) if math.isfinite(b)]


@dataclass(frozen=True)
class Whisker:
    """One row of an interval chart: an estimate, its interval, and where chance lies (None: not known)."""

    label: str
    value: Number
    low: Number
    high: Number
    chance: Number | None = None
    n: int = 0


def line_chart(
    series: Sequence[Series],
    y_label: str,
    x_label: str = "samples seen",
    log_y: bool = False,
    references: Sequence[tuple[str, Number]] = (),
    max_points: int = 400,
) -> str:
    """A line chart; `references` are dashed horizontal lines with a label (chance, a clamp)."""
    lines = [(s.name, _thin([p for p in s.points() if not log_y or p[1] > 0], max_points)) for s in series]
    lines = [(name, points) for name, points in lines if points]
    if not lines:
        return '<p class="empty">nothing was logged</p>'
    xs = [p[0] for _, points in lines for p in points]
    ys = [p[1] for _, points in lines for p in points] + [r[1] for r in references]
    low, high = _bounds(ys, log_y)
    x0, x1 = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1

    def at(x: Number, y: Number) -> tuple[float, float]:
        if log_y:
            share = (math.log10(y) - math.log10(low)) / (math.log10(high) - math.log10(low))
        else:
            share = (y - low) / (high - low)
        return (
            LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM),
        )

    parts = [_axes(low, high, x0, x1, log_y, x_label, y_label, at)]
    for label, y in references:
        _, py = at(x0, y)
        parts.append(f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text class="reference" x="{WIDTH - RIGHT}" y="{py - 4:.1f}">{escape(label)}</text>')
    for i, (name, points) in enumerate(lines):
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(*p) for p in points))
        dots = "".join(
            f'<circle class="dot" cx="{px:.1f}" cy="{py:.1f}" r="5">'
            f"<title>{escape(name)}: {short(y)} at {short(x)}</title>"
            "</circle>"
            for (x, y), (px, py) in ((p, at(*p)) for p in points)
        )
        mark = f'<circle class="mark" cx="{at(*points[0])[0]:.1f}" cy="{at(*points[0])[1]:.1f}" r="3"/>'
        body = f'<polyline points="{path}"/>' if len(points) > 1 else mark
        parts.append(f'<g class="series s{i % 6}">{body}{dots}</g>')
    legend = "".join(
        f'<span class="key s{i % 6}">{escape(name)} <b>{short(points[-1][1])}</b></span>'
        for i, (name, points) in enumerate(lines)
    )
    return (
        f'<figure class="chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)}">'
        f"{''.join(parts)}</svg><figcaption>{legend}</figcaption></figure>"
    )


def interval_chart(rows: Sequence[Whisker], percent: bool = True) -> str:
    """Estimates as dots with their intervals; a tick stands where chance lies."""
    if not rows:
        return '<p class="empty">no estimates</p>'
    longest = max(len(r.label) for r in rows)
    row_height, left, right = 26, max(190, 24 + 7 * min(longest, 60)), 172
    width, height = WIDTH + 160 + left - 190, len(rows) * row_height + 26
    ends = [e for r in rows for e in (r.low, r.high, r.chance or 0.0) if math.isfinite(e)]
    top = max(1.0, *ends) if percent else max(0.0, *ends) * 1.05 or 1.0
    bottom = min(0.0, *ends) * 1.05  # differences may lie below nothing

    def px(value: Number) -> float:
        return left + min(max((value - bottom) / (top - bottom), 0.0), 1.0) * (width - left - right)

    parts = []
    for tick in _ticks(bottom, top) if bottom else _quarters(top):
        x = px(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 20}"/>')
        label = f"{tick:.0%}" if percent else short(tick)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{label}</text>')
    for i, row in enumerate(rows):
        y = 16 + i * row_height
        shown = (
            f"{row.value:.1%} [{row.low:.1%}, {row.high:.1%}]"
            if percent
            else f"{short(row.value)} [{short(row.low)}, {short(row.high)}]"
        )
        parts.append(f'<text class="label" x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(row.label)}</text>')
        parts.append(f'<line class="whisker" x1="{px(row.low):.1f}" x2="{px(row.high):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="estimate" cx="{px(row.value):.1f}" cy="{y}" r="4.5"/>')
        if row.chance is not None:
            x = px(row.chance)
            parts.append(
                f'<line class="chance" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{y + 8}">'
                f"<title>chance {row.chance:.3%}</title></line>"
            )
        parts.append(f'<text class="value" x="{width - right + 10}" y="{y + 4}">{shown}</text>')
    box = f"0 0 {width} {height}"
    return f'<figure class="chart wide"><svg viewBox="{box}" role="img">{"".join(parts)}</svg></figure>'


def _quarters(top: Number) -> list[float]:
    return [top * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)]


def histogram(values: Sequence[Number], counts: Sequence[Number], x_label: str) -> str:
    """Bars of `counts` over the bins that start at `values`."""
    if not counts:
        return '<p class="empty">nothing to count</p>'
    top = max(counts) or 1
    width = (WIDTH - LEFT - RIGHT) / len(counts)
    inner = HEIGHT - TOP - BOTTOM
    bars = "".join(
        f'<rect class="bar" x="{LEFT + i * width:.1f}" width="{max(width - 1, 0.5):.1f}" '
        f'y="{HEIGHT - BOTTOM - c / top * inner:.1f}" height="{c / top * inner:.1f}">'
        f"<title>{short(v)}: {c:,.0f}</title></rect>"
        for i, (v, c) in enumerate(zip(values, counts, strict=True))
    )
    every = max(1, len(values) // 8)
    ticks = "".join(
        f'<text class="tick" x="{LEFT + (i + 0.5) * width:.1f}" y="{HEIGHT - BOTTOM + 16}" '
        f'text-anchor="middle">{short(v)}</text>'
        for i, v in enumerate(values)
        if i % every == 0
    )
    label = (
        f'<text class="axis" x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
    )
    most = f'<text class="tick" x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{top:,.0f}</text>'
    return f'<figure class="chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}">{bars}{ticks}{label}{most}</svg></figure>'


# Viridis at five stops (Smith and van der Walt, 2015): even steps of lightness, safe for colour-blind readers.
_VIRIDIS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=float)


def heatmap(matrix: Sequence[Sequence[Number]], cell: int = 0) -> str:
    """A matrix as a picture (a PNG data URI), dark = low, bright = high; its range is written beneath."""
    values = np.asarray(matrix, dtype=float)
    if values.size == 0:
        return '<p class="empty">empty matrix</p>'
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    share = (np.nan_to_num(values, nan=low) - low) / ((high - low) or 1.0) * (len(_VIRIDIS) - 1)
    below = np.clip(share.astype(int), 0, len(_VIRIDIS) - 2)
    part = (share - below)[..., None]
    colours = (_VIRIDIS[below] * (1 - part) + _VIRIDIS[below + 1] * part).round().astype(np.uint8)
    cell = cell or max(1, 480 // max(values.shape))
    image = Image.fromarray(colours.repeat(cell, 0).repeat(cell, 1))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    uri = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure class="heatmap"><img src="data:image/png;base64,{uri}" alt="matrix" width="{image.width}">'
        f'<figcaption><span class="ramp"></span> {short(low)} to {short(high)}</figcaption></figure>'
    )


def short(value: Number) -> str:
    """A number as a person would write it on an axis: 1.2k, 0.034, 3M."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.3g}{suffix}"
    if size and size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3g}"


def _bounds(ys: Sequence[Number], log_y: bool) -> tuple[float, float]:
    low, high = float(min(ys)), float(max(ys))
    if log_y:
        return (low / 1.3, high * 1.3)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < 0.3 * high else low - pad, high + pad)


def _axes(
    low: Number,
    high: Number,
    x0: Number,
    x1: Number,
    log_y: bool,
    x_label: str,
    y_label: str,
    at: Callable[[Number, Number], tuple[float, float]],
) -> str:
    parts = []
    y_ticks = _log_ticks(low, high) if log_y else _ticks(low, high)
    for y in y_ticks:
        _, py = at(x0, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{short(y)}</text>')
    for x in _ticks(x0, x1):
        px, _ = at(x, high)
        parts.append(
            f'<text class="tick" x="{px:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{short(x)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    centre = (TOP + HEIGHT - BOTTOM) / 2
    turn = f"rotate(-90 14 {centre})"
    parts.append(
        f'<text class="axis" x="14" y="{centre}" text-anchor="middle" transform="{turn}">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _ticks(low: Number, high: Number, about: int = 5) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= about)
    first = math.ceil(low / step)
    return [float(i * step) for i in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: Number, high: Number) -> list[float]:
    decades = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    inside = [d for d in decades if low <= d <= high]
    return inside if len(inside) > 1 else [t for d in decades for t in (d, 2 * d, 5 * d) if low <= t <= high]


def _thin(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    if len(points) <= most:
        return points
    chosen = np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))
    return [points[i] for i in chosen]
