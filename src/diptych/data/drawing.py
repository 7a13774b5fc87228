"""A small drawing language and its interpreter: what the scenes are written in, kept beside each picture.

A program is lines of text; lengths are thousandths of the picture's side, so that it draws at any resolution:

    background grey
    circle x=250 y=310 r=120 fill=red
    text x=500 y=840 height=180 fill=black word=MAP

Drawn four times too large and averaged down, without fonts: the pixels depend on nothing that a machine has installed.
"""

import math
import re

from PIL import Image, ImageDraw

from diptych.core.errors import DataError

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (44, 150, 60),
    "blue": (40, 90, 210),
    "yellow": (245, 205, 30),
    "purple": (140, 60, 170),
    "orange": (250, 130, 20),
    "pink": (245, 140, 190),
    "black": (25, 25, 25),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "grey": (190, 190, 190),
    "beige": (235, 222, 190),
}
OVERSAMPLING = 4
MAX_LINES = 100
MAX_RESOLUTION = 2048


def _corners(count: int, turn: float = 0.0, inner: float | None = None) -> tuple[tuple[float, float], ...]:
    """A regular polygon in the unit circle, first corner up; with `inner`, a star whose notches lie at that radius."""
    steps = count if inner is None else 2 * count
    radii = [1.0 if inner is None or i % 2 == 0 else inner for i in range(steps)]
    angles = [2 * math.pi * (i / steps + turn) for i in range(steps)]
    return tuple((r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True))


_THIRD = 0.36
POLYGONS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle": ((0.0, -0.95), (0.95, 0.8), (-0.95, 0.8)),
    "diamond": ((0.0, -1.0), (0.75, 0.0), (0.0, 1.0), (-0.75, 0.0)),
    "star": _corners(5, inner=0.42),
    "hexagon": _corners(6, turn=1 / 12),
    "cross": (
        *((-_THIRD, -1.0), (_THIRD, -1.0), (_THIRD, -_THIRD), (1.0, -_THIRD), (1.0, _THIRD), (_THIRD, _THIRD)),
        *((_THIRD, 1.0), (-_THIRD, 1.0), (-_THIRD, _THIRD), (-1.0, _THIRD), (-1.0, -_THIRD), (-_THIRD, -_THIRD)),
    ),
}
SHAPES = ("circle", "ring", *POLYGONS)

# Strokes on a grid 2 wide and 4 high, y down: a pen's path is a list of points, paths are separated by spaces.
_STROKES: dict[str, str] = {
    "A": "04,01,10,21,24 02,22",
    "B": "00,04,14,23,12,02 00,10,21,12",
    "C": "20,00,04,24",
    "D": "00,04,14,23,21,10,00",
    "E": "20,00,04,24 02,22",
    "F": "20,00,04 02,22",
    "G": "20,00,04,24,22,12",
    "H": "00,04 20,24 02,22",
    "I": "10,14 00,20 04,24",
    "J": "20,24,04,03",
    "K": "00,04 20,02,24",
    "L": "00,04,24",
    "M": "04,00,12,20,24",
    "N": "04,00,24,20",
    "O": "00,20,24,04,00",
    "P": "04,00,20,22,02",
    "Q": "00,20,24,04,00 13,24",
    "R": "04,00,20,22,02 12,24",
    "S": "20,00,02,22,24,04",
    "T": "00,20 10,14",
    "U": "00,04,24,20",
    "V": "00,14,20",
    "W": "00,04,12,24,20",
    "X": "00,24 20,04",
    "Y": "00,12,20 12,14",
    "Z": "00,20,04,24",
}
LETTERS = frozenset(_STROKES)
_PEN = 0.16
"""Width of the pen as a share of a letter's height."""

_LINE = re.compile(r"(?P<verb>[a-z]+)(?P<fields>( [a-z]+=[A-Za-z0-9]+)*)( (?P<name>[a-z]+))?")


def text_width(word: str, height: int) -> int:
    """How many thousandths of the side a word takes: a letter is about half as wide as high, a gap a quarter."""
    return round(height * ((3 * len(word) - 1) * (1 - _PEN) / 4 + _PEN))


def extent(shape: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a shape with radius 1 around 0."""
    corners = POLYGONS.get(shape, ((-1.0, -1.0), (1.0, 1.0)))
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def draw(program: str, resolution: int) -> Image.Image:
    """The RGB picture, `resolution` pixels a side, that a program draws. Errors: DataError names the wrong line."""
    if not 8 <= resolution <= MAX_RESOLUTION:
        raise DataError(f"a drawing's resolution must be 8 to {MAX_RESOLUTION} pixels; got {resolution}.")
    lines = program.splitlines()
    if len(lines) > MAX_LINES:
        raise DataError(f"a drawing must have at most {MAX_LINES} lines; got {len(lines):,}.")
    side = resolution * OVERSAMPLING
    image = Image.new("RGB", (side, side), BACKGROUNDS["white"])
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines, 1):
        try:
            _draw_line(pen, line, side)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"line {number} of a drawing must be a known statement; got {line[:80]!r} ({error})."
            ) from None
    return image.reduce(OVERSAMPLING)


def _draw_line(pen: ImageDraw.ImageDraw, line: str, side: int) -> None:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("not a statement")
    fields = dict(f.split("=") for f in match["fields"].split())
    if match["verb"] == "background":
        pen.rectangle((0, 0, side, side), fill=BACKGROUNDS[match["name"]])
    elif match["verb"] == "text":
        x, y, height = (int(fields[k]) * side / 1000 for k in ("x", "y", "height"))
        _draw_text(pen, fields["word"], x, y, height, fields["fill"])
    else:
        x, y, r = (int(fields[k]) * side / 1000 for k in ("x", "y", "r"))
        _draw_shape(pen, match["verb"], x, y, r, COLOURS[fields["fill"]])


def _draw_shape(pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, fill: tuple[int, int, int]) -> None:
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "ring":
        pen.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=max(1, round(r * 0.34)))
    else:
        pen.polygon([(x + r * dx, y + r * dy) for dx, dy in POLYGONS[shape]], fill=fill)


def _draw_text(pen: ImageDraw.ImageDraw, word: str, x: float, y: float, height: float, colour: str) -> None:
    """`word` in block letters, centred on (x, y)."""
    width, fill = height * _PEN, COLOURS[colour]
    unit = (height - width) / 4  # the pen's own width lies inside the height
    left, top = x - (3 * len(word) - 1) * unit / 2, y - 2 * unit
    for i, letter in enumerate(word):
        for path in _STROKES[letter].split():
            points = [(left + (3 * i + int(p[0])) * unit, top + int(p[1]) * unit) for p in path.split(",")]
            pen.line(points, fill=fill, width=max(1, round(width)), joint="curve")
            for px, py in points:  # round ends
                pen.ellipse((px - width / 2, py - width / 2, px + width / 2, py + width / 2), fill=fill)
