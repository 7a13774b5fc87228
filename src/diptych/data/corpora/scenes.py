"""Scenes: generated pictures of coloured shapes and words, of which everything is known. Needs no network.

Scene i is a pure function of (seed, i), at every resolution and for every size: a program of the language of
`diptych.data.drawing`, and all that `diptych.data.scene_words` can truly (or, marked so, falsely) say of it.
"""

import io
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from diptych.core.record import Record
from diptych.core.seeds import fold, numpy_generator
from diptych.data.corpora.corpus import GeneratedCorpus, GeneratedCorpusConfig
from diptych.data.drawing import BACKGROUNDS, COLOURS, SHAPES, draw, extent, text_width
from diptych.data.scene_words import RELATIONS, Scene, Thing, captions, foils, negations, questions

WORDS = ("MAP", "SUN", "BUS", "CAT", "DOG", "TEA", "BOX", "KEY", "ICE", "GOLD", "LAMP", "NORTH", "WEST", "STOP", "TAXI")
RADII = {"small": (70, 85), "large": (120, 140)}
"""Thousandths of the side; the gap between the two is what makes "small" and "large" mean something."""
CELL = 1000 / 3
"""Objects lie in the cells of a 3 x 3 grid, shaken inside them, so that they never touch."""
GAP = 12


class ScenesConfig(GeneratedCorpusConfig):
    """`size` scenes of `resolution` pixels a side. Raising `size` leaves the scenes before unchanged."""

    size: int = Field(default=10_000, ge=1)
    seed: int = 0
    resolution: int = Field(default=64, ge=16, le=1024)
    val: float = Field(default=0.05, ge=0.0, lt=0.5)
    test: float = Field(default=0.1, ge=0.0, lt=0.5)
    max_count: int = Field(default=4, ge=1, le=4)
    """Most equal objects in a group."""

    def build(self) -> "Scenes":
        """The corpus."""
        return Scenes(self)


class Scenes(GeneratedCorpus):
    """Records keyed by their number; the first caption is the fullest.

    meta: objects (shape, colour, size, word, boxes in pixels: left, top, right, bottom), relations (place, words,
    place), foils (false captions by the fact that is wrong), negations (sentence, whether true), questions (kind,
    question, answer), and code, the program that drew the picture.
    """

    config: ScenesConfig
    summary: ClassVar[str] = (
        "generated shapes and words: exact captions, boxes, questions, negations, and the code that drew them"
    )
    size: ClassVar[str] = "any; 10 k pictures, nothing to fetch, 35 MB packed"
    version: ClassVar[str] = "1"

    def record(self, i: int) -> Record:
        """Scene i."""
        config = self.config
        draws = numpy_generator(config.seed, "scene", i)
        scene = compose(draws, config.max_count)
        code = program(scene)
        meta = {
            "split": self._split(i),
            "objects": [described(t, config.resolution) for t in scene.things],
            "background": scene.background,
            "relations": [list(r) for r in scene.relations],
            "foils": foils(scene, draws),
            "negations": [{"text": text, "true": true} for text, true in negations(scene, draws)],
            "questions": [{"kind": k, "question": q, "answer": a} for k, q, a in questions(scene, draws)],
            "code": code,
        }
        return Record.pair(f"{i:09d}", encoded(code, config.resolution), "png", captions(scene), meta=meta)

    def _split(self, i: int) -> str:
        place = fold(self.config.seed, "scene-split", i) / 2**63
        if place < self.config.test:
            return "test"
        return "val" if place < self.config.test + self.config.val else "train"


def compose(draws: np.random.Generator, max_count: int = 4) -> Scene:
    """A scene drawn at random: one or two groups of equal objects; in a quarter of scenes a word above or below."""
    groups = int(draws.integers(1, 3))
    counts = [1 + int(draws.integers(max_count)) if draws.random() < 0.5 else 1 for _ in range(groups)]
    word_row = int(draws.choice((0, 2))) if draws.random() < 0.25 else None
    cells = [(c, r) for r in range(3) if r != word_row for c in range(3)]
    counts = [min(n, len(cells) // groups) for n in counts]
    places = iter([cells[int(k)] for k in draws.permutation(len(cells))])
    things: list[Thing] = []
    kinds: set[tuple[str, str]] = set()
    for count in counts:
        kind = pick(draws, SHAPES), pick(draws, COLOURS)
        while kind in kinds:
            kind = pick(draws, SHAPES), pick(draws, COLOURS)
        kinds.add(kind)
        size = pick(draws, RADII)
        radius = int(draws.integers(*RADII[size]))  # equal objects are drawn equal
        boxes = tuple(_placed(draws, next(places), radius) for _ in range(count))
        things.append(Thing(*kind, size, boxes))
    if word_row is not None:
        things.append(_word(draws, word_row))
    return Scene(pick(draws, BACKGROUNDS), tuple(things), relations_of(things))


def program(scene: Scene) -> str:
    """The scene in the drawing language."""
    lines = [f"background {scene.background}"]
    for thing in scene.things:
        for left, top, right, bottom in thing.boxes:
            x, y = (left + right) // 2, (top + bottom) // 2
            if thing.shape == "word":
                lines.append(f"text x={x} y={y} height={bottom - top} fill={thing.colour} word={thing.word}")
            else:
                lines.append(f"{thing.shape} x={x} y={y} r={(right - left) // 2} fill={thing.colour}")
    return "\n".join(lines)


def encoded(code: str, resolution: int) -> bytes:
    """What a program draws, as a PNG."""
    out = io.BytesIO()
    draw(code, resolution).save(out, format="PNG")
    return out.getvalue()


def _placed(draws: np.random.Generator, cell: tuple[int, int], radius: int) -> tuple[int, int, int, int]:
    """The box of an object of this radius, somewhere inside its cell."""
    room = CELL / 2 - radius - GAP
    x, y = (round((c + 0.5) * CELL + draws.uniform(-room, room)) for c in cell)
    return x - radius, y - radius, x + radius, y + radius


def _word(draws: np.random.Generator, row: int) -> Thing:
    word = pick(draws, WORDS)
    height = 2 * int(draws.integers(80, 100))
    width = text_width(word, height) // 2 * 2
    room = (1000 - width) / 2 - 40
    x = round(500 + draws.uniform(-room, room))
    y = round((row + 0.5) * CELL + draws.uniform(-40, 40))
    box = (x - width // 2, y - height // 2, x + width // 2, y + height // 2)
    return Thing("word", pick(draws, COLOURS), "", (box,), word)


def relations_of(things: list[Thing]) -> tuple[tuple[int, str, int], ...]:
    """Both readings of how each pair of single things lies, along the axis on which they are farther apart."""
    single = [i for i, t in enumerate(things) if t.count == 1]
    found: list[tuple[int, str, int]] = []
    for n, i in enumerate(single):
        for j in single[n + 1 :]:
            (ax, ay), (bx, by) = (
                ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (things[i].boxes[0], things[j].boxes[0])
            )
            vertical = "word" in (things[i].shape, things[j].shape) or abs(ay - by) > abs(
                ax - bx
            )  # a word has its own row
            if vertical:
                relation = "above" if ay < by else "below"
            else:
                relation = "to the left of" if ax < bx else "to the right of"
            found += [(i, relation, j), (j, RELATIONS[relation], i)]
    return tuple(found)


def described(thing: Thing, resolution: int) -> dict[str, Any]:
    """A thing as JSON, its boxes tight, in pixels with a decimal."""
    boxes = []
    for left, top, right, bottom in thing.boxes:
        x, y, r = (left + right) / 2, (top + bottom) / 2, (right - left) / 2
        tight: tuple[float, ...] = (left, top, right, bottom)
        if thing.shape != "word":
            tight = tuple(c + r * e for c, e in zip((x, y, x, y), extent(thing.shape), strict=True))
        boxes.append([round(v * resolution / 1000, 1) for v in tight])
    return {"shape": thing.shape, "colour": thing.colour, "size": thing.size, "word": thing.word, "boxes": boxes}


def pick(draws: np.random.Generator, options: Any) -> str:
    """One of `options`."""
    found = tuple(options)
    return str(found[int(draws.integers(len(found)))])
