"""What can truly be said of a generated scene: captions, captions that are false in one fact, negations, questions.

Everything is derived from the same `Thing`s that were drawn; nothing is guessed from pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diptych.data.drawing import COLOURS, SHAPES

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RELATIONS = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}
"""Each with its opposite."""


@dataclass(frozen=True, slots=True)
class Thing:
    """Equal objects of a scene: so many of a shape (or one word), where each lies, in thousandths of the side."""

    shape: str
    """One of drawing.SHAPES, or "word"."""
    colour: str
    size: str
    """ "small" or "large"; words are "" """
    boxes: tuple[tuple[int, int, int, int], ...]
    """Left, top, right, bottom of each."""
    word: str = ""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a background; relations hold between single things: (place of one, relation, place of the other)."""

    background: str
    things: tuple[Thing, ...]
    relations: tuple[tuple[int, str, int], ...]


def plural(shape: str) -> str:
    """More than one of a shape."""
    return f"{shape}es" if shape.endswith(("s", "x")) else f"{shape}s"


def article(words: str) -> str:
    """`words` after "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def phrase(thing: Thing, size: bool = True, colour: str = "", count: int = 0, shape: str = "") -> str:
    """A thing in words: "two small red circles", "the word MAP in black"; the last three say something else instead."""
    hue = colour or thing.colour
    if thing.shape == "word":
        return f"the word {shape or thing.word} in {hue}"
    what = " ".join(w for w in (thing.size if size else "", hue, shape or thing.shape) if w)
    number = count or thing.count
    return article(what) if number == 1 else f"{NUMBERS[number]} {plural(what)}"


def captions(scene: Scene) -> tuple[str, ...]:
    """True sentences, the fullest first, without repeats."""
    full = listed([phrase(t) for t in scene.things])
    brief = listed([phrase(t, size=False) for t in scene.things])
    said = [f"{phrase(scene.things[i])} {relation} {phrase(scene.things[j])}" for i, relation, j in scene.relations]
    first = said[0] if said and len(scene.things) == 2 else full
    found = [f"{first} on a {scene.background} background", first, *said, full, brief, f"a picture of {brief}"]
    return tuple(dict.fromkeys(found))


def foils(scene: Scene, draws: np.random.Generator) -> dict[str, str]:
    """False sentences by the one fact that is wrong in each; the true twin of each is among `captions`."""
    things = scene.things
    found: dict[str, str] = {}
    i = int(draws.integers(len(things)))
    taken = {(t.shape, t.colour) for t in things}
    colour = _other(COLOURS, draws, {c for s, c in taken if s == things[i].shape})
    found["colour"] = listed([phrase(t, colour=colour if k == i else "") for k, t in enumerate(things)])
    shaped = [k for k, t in enumerate(things) if t.shape != "word"]
    i = shaped[int(draws.integers(len(shaped)))]
    shape = _other(SHAPES, draws, {s for s, c in taken if c == things[i].colour})
    found["shape"] = listed([phrase(t, shape=shape if k == i else "") for k, t in enumerate(things)])
    count = int(draws.choice([n for n in range(1, 5) if n != things[i].count]))
    found["count"] = listed([phrase(t, count=count if k == i else 0) for k, t in enumerate(things)])
    if scene.relations:
        a, relation, b = scene.relations[0]
        found["relation"] = f"{phrase(things[a])} {RELATIONS[relation]} {phrase(things[b])}"
        found["order"] = f"{phrase(things[b])} {relation} {phrase(things[a])}"
    if len(things) > 1 and things[0].colour != things[1].colour and things[0].shape != things[1].shape:
        swapped = (phrase(things[0], colour=things[1].colour), phrase(things[1], colour=things[0].colour))
        found["binding"] = listed([*swapped, *(phrase(t) for t in things[2:])])
    return found


def negations(scene: Scene, draws: np.random.Generator) -> tuple[tuple[str, bool], ...]:
    """Sentences with "no" and whether they are true of the scene."""
    shapes = {t.shape for t in scene.things}
    colours = {t.colour for t in scene.things}
    absent = _other(SHAPES, draws, shapes)
    here = next(t for t in scene.things if t.shape != "word")
    found = [(f"there is no {absent}", True), (f"there is no {here.shape}", False)]
    found.append((f"{phrase(here)} and no {absent}", True))
    found.append((f"nothing is {_other(COLOURS, draws, colours)}", True))
    found.append((f"nothing is {here.colour}", False))
    return tuple(found)


def questions(scene: Scene, draws: np.random.Generator) -> tuple[tuple[str, str, str], ...]:
    """(kind, question, answer): answers are a word or a number in figures, never ambiguous."""
    found: list[tuple[str, str, str]] = []
    shaped = [t for t in scene.things if t.shape != "word"]
    by_shape: dict[str, list[Thing]] = {}
    for thing in shaped:
        by_shape.setdefault(thing.shape, []).append(thing)
    for shape, same in by_shape.items():
        found.append(("count", f"how many {plural(shape)} are there?", str(sum(t.count for t in same))))
        if len(same) == 1:
            verb, noun = ("is", shape) if same[0].count == 1 else ("are", plural(shape))
            found.append(("colour", f"what colour {verb} the {noun}?", same[0].colour))
            found.append(("size", f"{verb} the {noun} small or large?", same[0].size))
    absent = _other(SHAPES, draws, set(by_shape))
    present = shaped[int(draws.integers(len(shaped)))]
    found.append(("presence", f"is there {article(absent)}?", "no"))
    found.append(("presence", f"is there {article(f'{present.colour} {present.shape}')}?", "yes"))
    for word in (t for t in scene.things if t.shape == "word"):
        found.append(("text", "what does it say?", word.word))
        found.append(("colour", "what colour is the word?", word.colour))
    for i, relation, j in scene.relations:
        a, b = (_name(scene.things[k]) for k in (i, j))
        found.append(("relation", f"is {a} {relation} {b}?", "yes"))
        found.append(("relation", f"is {a} {RELATIONS[relation]} {b}?", "no"))
    found.append(("background", "what colour is the background?", scene.background))
    return tuple(found)


def _name(thing: Thing) -> str:
    return "the word" if thing.shape == "word" else f"the {thing.size} {thing.colour} {thing.shape}"


def listed(parts: Sequence[str]) -> str:
    """Things in words, one after the other: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _other(words: Sequence[str] | dict[str, tuple[int, int, int]], draws: np.random.Generator, but: set[str]) -> str:
    left = [w for w in words if w not in but]
    return left[int(draws.integers(len(left)))]
