"""Little programs that draw, each a pure function of (seed, n): pictures whose code is known exactly.

Two languages: the house's own (`data/drawing.py`), and charts in SVG. Charts bear no words, since what a word looks
like depends on the fonts of a machine, and resvg is given none.
"""

import math
from typing import NamedTuple

import numpy as np

from diptych.core.seeds import numpy_generator
from diptych.data.drawing import BACKGROUNDS, COLOURS, LETTERS, SHAPES

CHARTS = ("bar", "line", "scatter", "pie")
_SIDE = 200


class Program(NamedTuple):
    """Code, the language that it is in, and what it draws in plain words."""

    code: str
    language: str
    says: str


def drawing_program(seed: int, n: int) -> Program:
    """One to five shapes that hardly overlap, sometimes a word, in the house's drawing language."""
    rng = numpy_generator("drawing program", seed, n)
    background = str(rng.choice(list(BACKGROUNDS)))
    lines, said, placed = [f"background {background}"], list[str](), list[tuple[int, int, int]]()
    for _ in range(int(rng.integers(1, 6))):
        shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
        for _ in range(20):
            r = int(rng.integers(60, 180))
            x, y = (int(v) for v in rng.integers(r, 1000 - r, 2))
            if all(math.hypot(x - a, y - b) > r + c for a, b, c in placed):
                placed.append((x, y, r))
                lines.append(f"{shape} x={x} y={y} r={r} fill={colour}")
                said.append(f"a {colour} {shape}")
                break
    if rng.random() < 0.3:
        word = "".join(str(c) for c in rng.choice(sorted(LETTERS), 3))
        lines.append(f"text x=500 y=900 height=120 fill={rng.choice(list(COLOURS))} word={word}")
        said.append(f"the word {word}")
    return Program("\n".join(lines), "drawing", f"{', '.join(said)} on {background}")


def chart_program(seed: int, n: int) -> Program:
    """A bar, line, scatter or pie chart as SVG, 200 units a side."""
    rng = numpy_generator("chart program", seed, n)
    chart = CHARTS[int(rng.integers(len(CHARTS)))]
    colours = [_hex(c) for c in rng.permutation(list(COLOURS.values()))]
    count = int(rng.integers(3, 8))
    values = [int(v) for v in rng.integers(10, 161, count)]
    body = {"bar": _bars, "line": _line, "scatter": _scatter, "pie": _pie}[chart](values, colours, rng)
    frame = [] if chart == "pie" else ['<path d="M20 20V180H190" fill="none" stroke="black"/>']
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SIDE} {_SIDE}">'
    lines = [head, f'<rect width="{_SIDE}" height="{_SIDE}" fill="white"/>', *frame, *body, "</svg>"]
    return Program("\n".join(lines), "svg", f"a {chart} chart of {count} values: {', '.join(map(str, values))}")


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in colour)


def _bars(values: list[int], colours: list[str], rng: np.random.Generator) -> list[str]:
    step = 160 // len(values)
    fills = [colours[0]] * len(values) if rng.random() < 0.5 else colours
    return [
        f'<rect x="{25 + i * step}" y="{180 - v}" width="{step - 6}" height="{v}" fill="{fills[i]}"/>'
        for i, v in enumerate(values)
    ]


def _line(values: list[int], colours: list[str], rng: np.random.Generator) -> list[str]:
    step = 160 // (len(values) - 1)
    points = " ".join(f"{25 + i * step},{180 - v}" for i, v in enumerate(values))
    width = int(rng.integers(2, 6))
    return [f'<polyline points="{points}" fill="none" stroke="{colours[0]}" stroke-width="{width}"/>']


def _scatter(values: list[int], colours: list[str], rng: np.random.Generator) -> list[str]:
    places = [int(x) for x in rng.integers(30, 186, len(values))]
    return [f'<circle cx="{x}" cy="{180 - v}" r="5" fill="{colours[0]}"/>' for x, v in zip(places, values, strict=True)]


def _pie(values: list[int], colours: list[str], rng: np.random.Generator) -> list[str]:
    whole, done, slices = sum(values), 0, list[str]()
    for i, value in enumerate(values):
        a, b = (2 * math.pi * part / whole for part in (done, done + value))
        done += value
        x1, y1, x2, y2 = (round(v) for v in _ends(a, b))
        large = int(b - a > math.pi)
        slices.append(f'<path d="M100 100L{x1} {y1}A80 80 0 {large} 1 {x2} {y2}Z" fill="{colours[i]}"/>')
    return slices


def _ends(a: float, b: float) -> tuple[float, float, float, float]:
    """Where a slice of a pie begins and ends, clockwise from the top."""
    return (
        100 + 80 * math.sin(a),
        100 - 80 * math.cos(a),
        100 + 80 * math.sin(b),
        100 - 80 * math.cos(b),
    )
