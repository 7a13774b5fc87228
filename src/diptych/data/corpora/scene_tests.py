"""Scene tests: generated pictures with a right caption and a wrong one, which differ in one fact. Needs no network.

They come in sets of two pictures and two captions, each caption true of one of the pictures and false of the other.
So whoever looks at the captions alone is right of exactly one picture of each set, whatever is likely in the language:
half of all, not by luck but by construction. The pictures of a set differ in the fact and in nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from diptych.core.record import Record
from diptych.core.seeds import numpy_generator
from diptych.data.corpora.corpus import GeneratedCorpus, GeneratedCorpusConfig
from diptych.data.corpora.scenes import CELL, GAP, RADII, WORDS, described, encoded, pick, program, relations_of
from diptych.data.drawing import BACKGROUNDS, COLOURS, SHAPES, text_width
from diptych.data.pack import PackConfig
from diptych.data.scene_words import RELATIONS, Scene, Thing, listed, phrase

CLEAR = 100
"""Thousandths of the side by which one axis must outweigh the other where a relation is tested: no near diagonals."""

TRIES = 1000
"""How often a layout is drawn before the corpus gives up; one in three fits."""


class SceneTestsConfig(GeneratedCorpusConfig):
    """`size` pictures of `resolution` pixels a side, each test having equally many. Raising `size` leaves the pictures
    before unchanged."""

    size: int = Field(default=3600, ge=2)
    seed: int = 0
    resolution: int = Field(default=64, ge=16, le=1024)

    def build(self) -> "SceneTests":
        """The corpus."""
        return SceneTests(self)


class Spot(NamedTuple):
    """Where a thing may lie: a cell of the grid, how it is shaken inside it (-1 to 1 each way), and how large it is
    within its size (0 to 1). Things of either size fit."""

    cell: tuple[int, int]
    shake: tuple[float, float]
    share: float

    def box(self, size: str) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of a thing of that size, in thousandths of the side."""
        low, high = RADII[size]
        radius = low + int(self.share * (high - low))
        room = CELL / 2 - radius - GAP
        x, y = (round((c + 0.5) * CELL + s * room) for c, s in zip(self.cell, self.shake, strict=True))
        return x - radius, y - radius, x + radius, y + radius


class Twins(NamedTuple):
    """Two scenes and two captions: the n-th caption is true of the n-th scene alone."""

    scenes: tuple[Scene, Scene]
    captions: tuple[str, str]


class SceneTests(GeneratedCorpus):
    """Records keyed by their number, all in the split test; the caption is right.

    meta: test, set (the number of the two pictures that belong together), distractors (the caption of the other),
    objects, background, relations and code, as those of `scenes` are.
    """

    config: SceneTestsConfig
    summary: ClassVar[str] = "generated pictures with a right and a wrong caption, which differ in one fact: nine tests"
    size: ClassVar[str] = "any; 3600 pictures, nothing to fetch, 14 MB packed"
    version: ClassVar[str] = "1"
    packing: ClassVar[PackConfig] = PackConfig(val=0.0, tokenizer="none")

    def record(self, i: int) -> Record:
        """Picture i."""
        number, which = divmod(i, 2)
        name = tuple(TESTS)[number % len(TESTS)]
        scenes, captions = TESTS[name](numpy_generator(self.config.seed, "scene-test", number))
        scene = scenes[which]
        code = program(scene)
        meta = {
            "split": "test",
            "test": name,
            "set": number,
            "distractors": [captions[1 - which]],
            "objects": [described(t, self.config.resolution) for t in scene.things],
            "background": scene.background,
            "relations": [list(r) for r in scene.relations],
            "code": code,
        }
        return Record.pair(f"{i:09d}", encoded(code, self.config.resolution), "png", (captions[which],), meta=meta)


def replace_object(draws: np.random.Generator) -> Twins:
    """Another shape: "a small red circle" or "a small red star"."""
    things = _groups(draws)
    other = pick(draws, [s for s in SHAPES if all(t.shape != s for t in things)])
    return _described_twins(draws, things, [replace(things[0], shape=other), *things[1:]])


def replace_attribute(draws: np.random.Generator) -> Twins:
    """Another colour: "a small red circle" or "a small green circle"."""
    things = _groups(draws)
    other = pick(draws, [c for c in COLOURS if c != things[0].colour])
    return _described_twins(draws, things, [replace(things[0], colour=other), *things[1:]])


def swap_attribute(draws: np.random.Generator) -> Twins:
    """The colours of two things swapped: "a red circle and a blue square" or "a blue circle and a red square"."""
    a, b = _groups(draws, number=2, differ_in_colour=True)
    return _described_twins(draws, [a, b], [replace(a, colour=b.colour), replace(b, colour=a.colour)])


def counting(draws: np.random.Generator) -> Twins:
    """One more: "two small red circles" or "three small red circles". At most four, as in scenes."""
    fewer = int(draws.integers(1, 4))
    things = _groups(draws, first=fewer + 1)
    return _described_twins(draws, [replace(things[0], boxes=things[0].boxes[:fewer]), *things[1:]], things)


def text(draws: np.random.Generator) -> Twins:
    """Another word of as many letters is written: "the word MAP in red" or "the word SUN in red"."""
    row = int(draws.choice((0, 2)))
    things = _groups(draws, taken=row)
    word = pick(draws, [w for w in WORDS if any(len(w) == len(v) and w != v for v in WORDS)])
    other = pick(draws, [w for w in WORDS if len(w) == len(word) and w != word])
    height = 2 * int(draws.integers(80, 100))
    width = text_width(word, height) // 2 * 2
    room = (1000 - width) / 2 - 40
    x = round(500 + draws.uniform(-room, room))
    y = round((row + 0.5) * CELL + draws.uniform(-40, 40))
    box = (x - width // 2, y - height // 2, x + width // 2, y + height // 2)
    said = Thing("word", pick(draws, COLOURS), "", (box,), word)
    return _described_twins(draws, [*things, said], [*things, replace(said, word=other)])


def relation(draws: np.random.Generator) -> Twins:
    """The opposite: "a red circle to the left of a blue square" or "a red circle to the right of a blue square"."""
    scenes, words = _laid_out(draws)
    a, b = (phrase(t) for t in scenes[0].things)
    return _ended(draws, scenes, (f"{a} {words} {b}", f"{a} {RELATIONS[words]} {b}"))


def word_order(draws: np.random.Generator) -> Twins:
    """The same words in another order: "a red circle above a blue square" or "a blue square above a red circle"."""
    scenes, words = _laid_out(draws)
    a, b = (phrase(t) for t in scenes[0].things)
    return _ended(draws, scenes, (f"{a} {words} {b}", f"{b} {words} {a}"))


def negation(draws: np.random.Generator) -> Twins:
    """What is not there: "there is no circle" or "there is no star". Who overhears the "no" is wrong of every one."""
    things = _groups(draws)
    other = pick(draws, [s for s in SHAPES if all(t.shape != s for t in things)])
    scenes = _scenes(draws, things, [replace(things[0], shape=other), *things[1:]])
    return Twins(scenes, (f"there is no {other}", f"there is no {things[0].shape}"))


def negation_scope(draws: np.random.Generator) -> Twins:
    """What is there and what is not: "a red circle and no red star" or "a red star and no red circle".

    In half of the sets "no" comes first in both, so that neither the words nor what is named first tell.
    """
    (here,) = _groups(draws, number=1, counts=False)
    there = replace(here, shape=pick(draws, [s for s in SHAPES if s != here.shape]))
    parts = [(phrase(x), f"no {phrase(y).partition(' ')[2]}") for x, y in ((here, there), (there, here))]
    order = 1 if draws.random() < 0.5 else -1
    first, second = (" and ".join(p[::order]) for p in parts)
    return Twins(_scenes(draws, [here], [there]), (first, second))


TESTS: dict[str, Callable[[np.random.Generator], Twins]] = {
    test.__name__: test
    for test in (
        replace_object,
        replace_attribute,
        swap_attribute,
        counting,
        text,
        relation,
        word_order,
        negation,
        negation_scope,
    )
}
"""The tests in the order in which sets take turns."""


def _groups(
    draws: np.random.Generator,
    number: int = 0,
    first: int = 0,
    counts: bool = True,
    taken: int | None = None,
    differ_in_colour: bool = False,
) -> list[Thing]:
    """One or two groups (`number`; 0: either) of equal things, no two of a shape, in the cells outside row `taken`.

    `first`: how many the first group has; else both have one to four, as in scenes, or one (`counts` False).
    """
    number = number or int(draws.integers(1, 3))
    spots = _spots(draws, taken)
    shapes = [SHAPES[int(k)] for k in draws.permutation(len(SHAPES))]
    things: list[Thing] = []
    for n in range(number):
        count = 1 + int(draws.integers(min(4, len(spots) // 2))) if counts and draws.random() < 0.5 else 1
        count = first if first and n == 0 else count
        size = pick(draws, RADII)
        some, spots = spots[:count], spots[count:]
        boxes = tuple(spot._replace(share=some[0].share).box(size) for spot in some)  # equal things are drawn equal
        free = [c for c in COLOURS if not differ_in_colour or all(t.colour != c for t in things)]
        things.append(Thing(shapes[n], pick(draws, free), size, boxes))
    return things


def _spots(draws: np.random.Generator, taken: int | None = None) -> list[Spot]:
    """A spot in every cell outside row `taken`, in any order."""
    cells = [(c, r) for r in range(3) if r != taken for c in range(3)]
    return [
        Spot(cells[int(k)], (draws.uniform(-1, 1), draws.uniform(-1, 1)), draws.random())
        for k in draws.permutation(len(cells))
    ]


def _laid_out(draws: np.random.Generator) -> tuple[tuple[Scene, Scene], str]:
    """Two single things, and the same two with their places changed; how the first lies to the second at first."""
    (a, b), background = _groups(draws, number=2, counts=False), pick(draws, BACKGROUNDS)
    for _ in range(TRIES):
        here, there, *_ = _spots(draws)
        scenes = tuple(
            Scene(background, (x, y), relations_of([x, y]))
            for x, y in (
                (replace(a, boxes=(one.box(a.size),)), replace(b, boxes=(other.box(b.size),)))
                for one, other in ((here, there), (there, here))
            )
        )
        words = [scene.relations[0][1] for scene in scenes]
        if words[1] == RELATIONS[words[0]] and all(map(_is_clear, scenes)):
            return (scenes[0], scenes[1]), words[0]
    raise AssertionError("no layout of two things is clear")


def _is_clear(scene: Scene) -> bool:
    """Whether the first two things lie plainly beside, or plainly above each other."""
    (ax, ay), (bx, by) = (((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (t.boxes[0] for t in scene.things[:2]))
    return abs(abs(ax - bx) - abs(ay - by)) > CLEAR


def _scenes(draws: np.random.Generator, one: Sequence[Thing], other: Sequence[Thing]) -> tuple[Scene, Scene]:
    """Two scenes on the same background."""
    background = pick(draws, BACKGROUNDS)
    first, second = (Scene(background, tuple(things), relations_of(list(things))) for things in (one, other))
    return first, second


def _described_twins(draws: np.random.Generator, one: Sequence[Thing], other: Sequence[Thing]) -> Twins:
    """Two scenes, of which the captions name all things, in one of the ways in which captions of scenes do."""
    scenes = _scenes(draws, one, other)
    if draws.random() < 1 / 3 and all(t.shape != "word" for t in one):
        first, second = (f"a picture of {listed([phrase(t, size=False) for t in s.things])}" for s in scenes)
        return Twins(scenes, (first, second))
    first, second = (listed([phrase(t) for t in s.things]) for s in scenes)
    return _ended(draws, scenes, (first, second))


def _ended(draws: np.random.Generator, scenes: tuple[Scene, Scene], captions: tuple[str, str]) -> Twins:
    """In half of the sets both captions go on with the background, which both pictures share."""
    end = f" on a {scenes[0].background} background" if draws.random() < 0.5 else ""
    return Twins(scenes, (captions[0] + end, captions[1] + end))
