"""Which objects a sentence names, by a table of names and synonyms: what CHAIR and questions about objects rest on.

Rohrbach et al., "Object hallucination in image captioning", arXiv:1809.02156, section 3: words are brought to the
singular, pairs of words that mean one thing are taken together, synonyms stand for their object. Their code guesses
singulars of the sentence's words; here the table holds the plural of each of its own words.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.core.errors import EvalError
from diptych.data.drawing import SHAPES
from diptych.evals.caption_words import caption_words
from diptych.evals.scene_facts import is_scene

COCO = tuple(
    """person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|parking meter|
bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|suitcase|frisbee|skis|
snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|wine glass|cup|fork|
knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed|
dining table|toilet|tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|
scissors|teddy bear|hair drier|toothbrush""".replace("\n", "").split("|")
)
"""The 80 objects of COCO, in the order of their numbers."""

DOUBLE = tuple(
    """motor bike|motor cycle|air plane|traffic light|street light|traffic signal|stop light|fire hydrant|stop sign|
parking meter|suit case|sports ball|baseball bat|baseball glove|tennis racket|wine glass|hot dog|cell phone|
mobile phone|teddy bear|hair drier|potted plant|laptop computer|home plate""".replace("\n", "").split("|")
)
"""Pairs of words that CHAIR takes for one: where the table does not know the pair, they name nothing ("home plate")."""

_ANIMALS = ["bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub"]
MEANT: dict[str, str] = {
    **{f"{age} {animal}": animal for animal in _ANIMALS for age in ("baby", "adult")},
    "passenger jet": "jet",
    "passenger train": "train",
    "bow tie": "tie",
    "toilet seat": "toilet",
}
"""Pairs of which only one word is meant: a baby bird is no person, in CHAIR's reading."""

_IRREGULAR = {
    "person": ("people", "persons"), "man": ("men",), "woman": ("women",), "child": ("children",), "mouse": ("mice",),
    "foot": ("feet",), "tooth": ("teeth",), "goose": ("geese",), "sheep": ("sheep",), "ox": ("oxen",),
    "knife": ("knives",), "wolf": ("wolves",), "leaf": ("leaves",), "loaf": ("loaves",), "shelf": ("shelves",),
    "calf": ("calves",), "scarf": ("scarves", "scarfs"), "wife": ("wives",), "thief": ("thieves",),
}  # fmt: skip
_LONGEST = 4


class ObjectWords:
    """Finds objects in sentences. `names`: the objects; `synonyms`: by other words for one, its name."""

    def __init__(self, names: Iterable[str], synonyms: Mapping[str, str] | None = None) -> None:
        self.names = tuple(dict.fromkeys(n.lower() for n in names))
        table = {name: name for name in self.names}
        table |= {s.lower(): n.lower() for s, n in (synonyms or {}).items() if n.lower() in table}
        self._meant: dict[tuple[str, ...], str] = {}
        for phrase in DOUBLE:
            self._add(phrase, "")
        for phrase, word in MEANT.items():
            self._add(phrase, table.get(word, ""))
        for phrase, name in table.items():
            self._add(phrase, name)

    def mentions(self, sentence: str) -> list[str]:
        """The names of the objects that a sentence names, in order, as often as it names them."""
        words = caption_words(sentence)
        if "toilet" in words and "seat" in words:  # of a toilet, it is no chair
            words = tuple(w for w in words if w != "seat")
        found: list[str] = []
        i = 0
        while i < len(words):
            size = next((n for n in range(_LONGEST, 0, -1) if words[i : i + n] in self._meant), 1)
            name = self._meant.get(words[i : i + size], "")
            found += [name] if name else []
            i += size
        return found

    def _add(self, phrase: str, name: str) -> None:
        *before, last = phrase.split()
        for word in (last, *plurals(last)):
            self._meant[(*before, word)[-_LONGEST:]] = name


def plurals(word: str) -> tuple[str, ...]:
    """The ways to write more than one of a thing."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return (f"{word}es",)
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return (f"{word[:-1]}ies",)
    return (f"{word}s", f"{word}es") if word.endswith("o") else (f"{word}s",)


def read_synonyms(path: str | Path) -> dict[str, str]:
    """By synonym the object's name: a line holds a name and other words for it, with commas (CHAIR's own format)."""
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EvalError(
            f"synonyms must be a text file with an object and other words for it a line, with commas; got "
            f"{str(path)!r} ({reason}). Write for example: person, man, woman, child"
        ) from None
    found: dict[str, str] = {}
    for line in lines:
        name, *others = [w.strip().lower() for w in line.split(",") if w.strip()] or [""]
        found |= dict.fromkeys(others, name) | ({name: name} if name else {})
    return found


def objects_of(meta: Mapping[str, Any]) -> list[str] | None:
    """The distinct names of what a record's meta says is in its picture; None where it does not say.

    Of a scene the shapes; else `objects`: names, or mappings with a name (label, category).
    """
    listed = meta.get("objects")
    if not isinstance(listed, list):
        return None
    if is_scene(meta):
        return list(dict.fromkeys(str(o["shape"]) for o in listed))
    names = [_name(o) for o in listed]
    return None if None in names else list(dict.fromkeys(str(n).lower() for n in names))


def vocabulary(objects: Sequence[Sequence[str]], scenes: bool) -> tuple[str, ...]:
    """All objects there are: of scenes all shapes, of COCO's names all 80, else those that occur."""
    if scenes:
        return (*SHAPES, "word")
    found = sorted({o for each in objects for o in each})
    return COCO if found and set(found) <= set(COCO) else tuple(found)


def _name(thing: Any) -> str | None:
    if isinstance(thing, str):
        return thing
    if isinstance(thing, Mapping):
        return next((str(thing[k]) for k in ("name", "label", "category") if isinstance(thing.get(k), str)), None)
    return None
