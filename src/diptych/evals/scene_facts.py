"""What a caption of a generated scene claims, and which of its claims are true: exact, since everything is known.

A caption is read with the grammar that the `scenes` corpus writes (`diptych.data.scene_words`); what the picture holds
stands in its record's meta. A caption that the grammar does not know is counted as wrong, never left out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diptych.data.drawing import BACKGROUNDS, COLOURS, SHAPES
from diptych.data.scene_words import NUMBERS, RELATIONS, plural

FACTS = ("object", "colour", "size", "count", "text", "relation", "background")
"""What a caption can claim: that a shape (or a word) is there, its colour, its size, how many of it there are, what a
word says, how two things lie, and the colour of the background."""

SIZES = ("small", "large")
_SINGULAR = {s: s for s in SHAPES}
_PLURAL = {plural(s): s for s in SHAPES}
_ONE = ("a", "an", "one")


def _any(words: Sequence[str] | Mapping[str, Any]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_GROUP = re.compile(
    rf"(?:(?P<one>{_any(_ONE)})|(?P<number>{_any(NUMBERS[2:])})) (?:(?P<size>{_any(SIZES)}) )?"
    rf"(?P<colour>{_any(COLOURS)}) (?:(?P<singular>{_any(_SINGULAR)})|(?P<plural>{_any(_PLURAL)}))"
)
_WORD = re.compile(rf"the word (?P<word>[a-z]+) in (?P<colour>{_any(COLOURS)})")
_BACKGROUND = re.compile(rf"(?P<rest>.+) on an? (?P<background>{_any(BACKGROUNDS)}) background")
_RELATION = re.compile(rf"(?P<one>.+?) (?P<relation>{_any(RELATIONS)}) (?P<other>.+)")


@dataclass(frozen=True, slots=True)
class Said:
    """A thing as a caption names it; `size` and `word` are "" where it does not say."""

    shape: str
    colour: str
    size: str = ""
    count: int = 1
    word: str = ""


@dataclass(frozen=True, slots=True)
class Claims:
    """All that a caption says: things in order, a relation between the first and the second, the background."""

    things: tuple[Said, ...]
    relation: str = ""
    background: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a caption's claims: by fact, how many are true of how many; and how complete it is.

    named      true things that the caption names with their shape and colour (a word: with what it says), of `things`
    all_right  every claim is true and every thing is named
    """

    parsed: bool
    true: dict[str, int]
    claimed: dict[str, int]
    named: int
    things: int
    all_right: bool
    relations: int = field(default=0)
    """How many relations hold in the scene (both readings of each)."""


def parse_caption(caption: str) -> Claims | None:
    """The claims of a caption, or None where the corpus's grammar does not know it."""
    text = " ".join(caption.lower().split()).rstrip(".").strip()
    background = ""
    if found := _BACKGROUND.fullmatch(text):
        text, background = found["rest"], found["background"]
    relation = ""
    if found := _RELATION.fullmatch(text):
        relation, parts = found["relation"], [found["one"], found["other"]]
    else:
        parts = [p for chunk in text.removeprefix("a picture of ").split(", ") for p in chunk.split(" and ")]
    things = [_thing(p) for p in parts]
    if any(t is None for t in things):
        return None
    return Claims(tuple(t for t in things if t is not None), relation, background)


def judge(caption: str, meta: Mapping[str, Any], fullest: str = "") -> Verdict:
    """What a caption says of the scene that `meta` describes.

    One that cannot be read stands for as many claims as `fullest` (the scene's fullest caption), all of them false.
    """
    things = [
        Said(o["shape"], o["colour"], o["size"], len(o["boxes"]), str(o["word"]).lower()) for o in meta["objects"]
    ]
    relations = [tuple(r) for r in meta["relations"]]
    claims = parse_caption(caption)
    if claims is None:
        expected = parse_caption(fullest) or Claims(tuple(things))
        claimed = {fact: len(of) for fact, of in _checked(expected, things, relations, meta["background"]).items()}
        return Verdict(False, dict.fromkeys(FACTS, 0), claimed, 0, len(things), False, len(relations))
    checks = _checked(claims, things, relations, meta["background"])
    named = sum(place is not None and _same(said, things[place]) for said, place in _paired(claims.things, things))
    return Verdict(
        True,
        {fact: sum(of) for fact, of in checks.items()},
        {fact: len(of) for fact, of in checks.items()},
        named,
        len(things),
        named == len(things) and all(ok for of in checks.values() for ok in of),
        len(relations),
    )


def is_scene(meta: Mapping[str, Any]) -> bool:
    """Whether a record's meta describes a scene."""
    return all(isinstance(meta.get(key), list) for key in ("objects", "relations")) and "background" in meta


def _checked(
    claims: Claims, things: Sequence[Said], relations: Sequence[tuple[Any, ...]], background: str
) -> dict[str, list[bool]]:
    """Each claim by its fact: whether it is true."""
    checks: dict[str, list[bool]] = {fact: [] for fact in FACTS}
    pairs = _paired(claims.things, things)
    for said, place in pairs:
        true = None if place is None else things[place]
        checks["object"].append(true is not None)
        checks["colour"].append(true is not None and true.colour == said.colour)
        if said.shape == "word":
            checks["text"].append(true is not None and true.word == said.word)
        else:
            checks["count"].append(true is not None and true.count == said.count)
        if said.size:
            checks["size"].append(true is not None and true.size == said.size)
    if claims.relation:
        (one, i), (other, j) = pairs[:2]
        held = (i, claims.relation, j) in relations
        known = i is not None and j is not None and _same(one, things[i]) and _same(other, things[j])
        checks["relation"].append(held and known)
    if claims.background:
        checks["background"].append(claims.background == background)
    return checks


def _same(said: Said, true: Said) -> bool:
    """Whether what was said names this thing: the shape and colour, or the word, whatever its colour."""
    return said.shape == true.shape and (said.word == true.word if said.shape == "word" else said.colour == true.colour)


def _paired(said: Sequence[Said], things: Sequence[Said]) -> list[tuple[Said, int | None]]:
    """Each named thing with the place of the true one that it can only mean: one of its name, else of its shape, never
    one that another has taken."""
    places: list[int | None] = [None] * len(said)
    for fits in (_same, lambda a, b: a.shape == b.shape):
        for n, one in enumerate(said):
            if places[n] is None:
                free = (i for i, t in enumerate(things) if i not in places and fits(one, t))
                places[n] = next(free, None)
    return list(zip(said, places, strict=True))


def _thing(words: str) -> Said | None:
    if found := _WORD.fullmatch(words):
        return Said("word", found["colour"], word=found["word"])
    found = _GROUP.fullmatch(words)
    if found is None or (found["one"] is None) != (found["singular"] is None):
        return None
    if found["singular"]:
        return Said(found["singular"], found["colour"], found["size"] or "")
    return Said(_PLURAL[found["plural"]], found["colour"], found["size"] or "", NUMBERS.index(found["number"]))
