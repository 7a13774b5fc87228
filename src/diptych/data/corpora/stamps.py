"""Tux Paint's rubber stamps: 950 photographs and drawings, a sentence each in up to 77 languages, many of them spoken.

From Debian tuxpaint-stamps-default. A stamp is a picture (PNG, or an SVG that is drawn here), a text with an English
sentence and its translations, and recordings: of the thing itself, and of the sentence as somebody reads it.
"""

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pydantic import Field

from diptych.core.errors import DataError
from diptych.core.record import Record, Segment
from diptych.core.seeds import fold
from diptych.data.archive import Member, read_members
from diptych.data.corpora.corpus import Corpus, CorpusConfig
from diptych.data.fetch import Package
from diptych.data.pack import PackConfig
from diptych.data.sources.source import Reject
from diptych.data.svg import render_svg

ROOT = "usr/share/tuxpaint/stamps/"

CLASSES: dict[str, str] = {
    "animals": "an animal",
    "clothes": "clothes",
    "food": "food",
    "hobbies": "a hobby or a musical instrument",
    "household": "a household item",
    "medical": "a medical item",
    "military": "a weapon or a military vehicle",
    "naturalforces": "a force of nature",
    "people": "a person",
    "plants": "a plant",
    "seasonal": "a holiday decoration",
    "space": "outer space",
    "sports": "sports equipment",
    "symbols": "a letter or a symbol",
    "town": "a building",
    "vehicles": "a vehicle",
}
"""The package's first folders, and what a picture in each shows."""
TEMPLATES = ("{}.", "A picture of {}.", "A photo of {}.", "A drawing of {}.")

_LANGUAGE = r"[a-z]{2,3}(?:_[A-Za-z]{2})?"
_TRANSLATION = re.compile(rf"({_LANGUAGE}(?:@[a-z]+)?)\.utf8=(.*)")
_READ_ALOUD = re.compile(rf"(.+)_desc(?:_({_LANGUAGE}))?")
_SOUND_IN = re.compile(rf"(.+)_({_LANGUAGE})")


class StampsConfig(CorpusConfig):
    """`languages` are those of the captions, in their order; a stamp that has a sentence in none of them is rejected.

    `val` and `test` are shares of the stamps, by a hash of the picture, so that equal ones never part. `audio` adds the
    recordings to the records: of the thing itself, and of the sentence read in each of `languages`.
    """

    languages: tuple[str, ...] = Field(default=("en",), min_length=1)
    resolution: int = Field(default=256, ge=16, le=1024)
    """Width in pixels of pictures that are drawn from SVG."""
    audio: bool = False
    val: float = Field(default=0.03, ge=0.0, lt=0.5)
    test: float = Field(default=0.2, ge=0.0, lt=0.5)

    def build(self) -> "Stamps":
        """The corpus."""
        return Stamps(self)


class Stamps(Corpus):
    """Records keyed by their path below the package's folder. meta holds the class (label, class_index), the folders,
    the sentence in every language ("sentences"), and where recordings lie in the package ("recordings": by language the
    sentence, "sound" the thing itself, "sound_de" that in German).
    """

    config: StampsConfig
    summary: ClassVar[str] = "950 photographs and drawings, a sentence each in up to 77 languages, 7.8 k recordings"
    origin: ClassVar[str] = "Debian tuxpaint-stamps-default 2022.06.04-1"
    licence: ClassVar[str] = "GPL-2"
    size: ClassVar[str] = "0.9 k pictures, 161 MB to fetch, 23 MB packed at 256 px"
    version: ClassVar[str] = "1"
    packing: ClassVar[PackConfig] = PackConfig(val=0.0, resize=256, min_side=16, vocab_size=2048, context_length=48)
    packages: ClassVar[tuple[Package, ...]] = (
        Package(
            client="apt",
            name="tuxpaint-stamps-default",
            version="2022.06.04-1",
            filename="tuxpaint-stamps-default_2022.06.04-1_all.deb",
            sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        ),
    )

    def classes(self) -> tuple[str, ...]:
        """What the pictures of each of the package's folders show."""
        return tuple(CLASSES.values())

    def templates(self) -> tuple[str, ...]:
        """Prompts in the manner of the sentences."""
        return TEMPLATES

    def records(self) -> Iterator[Record | Reject]:
        """Every picture by its path, as a record or with the reason why not."""
        pictures: dict[str, dict[str, Member]] = {}
        sentences: dict[str, dict[str, str]] = {}
        recorded: dict[str, Member] = {}
        for member in read_members(self.archives()[0], _is_wanted):
            path = PurePosixPath(member.name.removeprefix(ROOT))
            key = str(path.with_suffix(""))
            if path.suffix == ".txt":
                sentences[key] = read_sentences(member.data)
            elif path.suffix == ".ogg":
                recorded[key] = member if self.config.audio else Member(member.name, b"", member.link)
            else:
                pictures.setdefault(key, {})[path.suffix] = member
        recordings: dict[str, dict[str, Member]] = {}
        for stem, member in sorted(recorded.items()):
            found = _recorded(stem, pictures)
            if found is not None and member.link is None:
                recordings.setdefault(found[0], {})[found[1]] = member
        for key, kinds in sorted(pictures.items()):
            picture = kinds.get(".png") or kinds[".svg"]  # where both are there, one was drawn from the other
            yield self._record(key, picture, sentences.get(key, {}), recordings.get(key, {}))

    def where(self, key: str) -> str:
        """The member of the package that a record comes from."""
        return f"{self.packages[0].filename}: {ROOT}{key}"

    def _record(
        self, key: str, picture: Member, sentences: dict[str, str], recordings: dict[str, Member]
    ) -> Record | Reject:
        size, folder = len(picture.data), PurePosixPath(key).parts[0]
        captions = tuple(dict.fromkeys(sentences[n] for n in self.config.languages if n in sentences))
        if picture.link is not None:
            return Reject(key, f"a picture must be a file of its own; this links to {picture.link}.", "link")
        if not captions:
            wanted = ", ".join(self.config.languages)
            message = f"a stamp must have a sentence in {wanted}; this one has none (most such are mirror images)."
            return Reject(key, message, "no_sentence", size=size)
        if folder not in CLASSES:
            message = f"a stamp must lie in one of {', '.join(CLASSES)}; this one is in {folder}."
            return Reject(key, message, "unknown_folder", size=size)
        data = picture.data
        if picture.name.endswith(".svg"):
            try:
                data = render_svg(data, self.config.resolution)
            except DataError as error:
                return Reject(key, str(error), "svg", size=size)
        meta: dict[str, Any] = {
            "split": self._split(picture.data),
            "label": CLASSES[folder],
            "class_index": list(CLASSES).index(folder),
            "folder": str(PurePosixPath(key).parent),
            "sentences": sentences,
            "recordings": {language: member.name for language, member in recordings.items()},
        }
        record = Record.pair(key, data, "png", captions, meta=meta)
        heard = [recordings[n] for n in ("sound", *self.config.languages) if self.config.audio and n in recordings]
        spoken = (Segment("audio", m.data, "ogg", "sound" if m is recordings.get("sound") else "speech") for m in heard)
        return Record(key, (*record.segments, *spoken), meta)

    def _split(self, picture: bytes) -> str:
        place = fold("stamps", blake2b(picture, digest_size=16).hexdigest()) / 2**63
        if place < self.config.test:
            return "test"
        return "val" if place < self.config.test + self.config.val else "train"


def read_sentences(data: bytes) -> dict[str, str]:
    """A stamp's sentence by language: the first line is English, each other a translation, ``de.utf8=Ein Apfel.``.

    A translation that is empty, or still the English sentence, is left out.
    """
    lines = [" ".join(line.split()) for line in data.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        return {}
    found = {"en": lines[0]}
    for line in lines[1:]:
        match = _TRANSLATION.fullmatch(line)
        if match and match[2] and match[2] != lines[0]:
            found.setdefault(match[1], match[2])
    return found


def _recorded(stem: str, pictures: Mapping[str, object]) -> tuple[str, str] | None:
    """Which picture a recording belongs to, and what it is: "sound", "sound_de", or the language it is read in."""
    if stem in pictures:
        return stem, "sound"
    match = _READ_ALOUD.fullmatch(stem)
    if match and match[1] in pictures:
        return match[1], match[2] or "en"
    match = _SOUND_IN.fullmatch(stem)
    return (match[1], f"sound_{match[2]}") if match and match[1] in pictures else None


def _is_wanted(name: str) -> bool:
    return name.startswith(ROOT) and name.endswith((".png", ".svg", ".txt", ".ogg"))
