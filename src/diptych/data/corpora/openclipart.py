"""Open Clip Art: 7 k public-domain drawings with the titles, descriptions and keywords that their makers wrote in 2004.

Pictures from Debian's openclipart-png, words from the RDF metadata of the same drawings in openclipart-svg. The words
are left as noisy as they are ("gramastar", "Part of the Flat Icon Collection", keywords that a script garbled): this is
the corpus to try curation on. Fifteen pictures are true decompression bombs (1 MB of PNG, 169 Mpx); packing names them.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic import Field

from diptych.core.errors import DataError
from diptych.core.image_format import ImageFormat
from diptych.core.record import Record
from diptych.core.seeds import fold
from diptych.data.archive import Member, read_members
from diptych.data.corpora.corpus import Corpus, CorpusConfig
from diptych.data.decode import BadImage, decode_image, resize_image
from diptych.data.fetch import Package
from diptych.data.near_copies import SIDE, miniature
from diptych.data.pack import PackConfig
from diptych.data.sources.source import Reject
from diptych.data.svg import SvgAbout, read_about

ROOT = "usr/share/openclipart"
SQUASHED = ImageFormat(resolution=SIDE, resize="squash")


class OpenclipartConfig(CorpusConfig):
    """`val` and `test` are shares of the pictures; those that look the same stay together."""

    val: float = Field(default=0.03, ge=0.0, lt=0.5)
    test: float = Field(default=0.05, ge=0.0, lt=0.5)

    def build(self) -> "Openclipart":
        """The corpus."""
        return Openclipart(self)


class Openclipart(Corpus):
    """Records keyed by their path below the package's folder; meta holds category, artist, keywords and licence.

    Captions: the title, the description, the file's name in words, the keywords; what is missing is left out.
    """

    config: OpenclipartConfig
    summary: ClassVar[str] = "7 k drawings with their makers' titles and keywords, noisy like the web, bombs included"
    origin: ClassVar[str] = "Debian openclipart-png and openclipart-svg 1:0.18+dfsg-19"
    licence: ClassVar[str] = "public domain (each record's own licence is in its meta)"
    size: ClassVar[str] = "6.9 k pictures, 156 MB to fetch, 90 MB packed at 256 px"
    version: ClassVar[str] = "2"
    packing: ClassVar[PackConfig] = PackConfig(val=0.0, resize=256, min_side=16)
    packages: ClassVar[tuple[Package, ...]] = (
        Package(
            client="apt",
            name="openclipart-png",
            version="1:0.18+dfsg-19",
            filename="openclipart-png_1%3a0.18+dfsg-19_all.deb",
            sha256="f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        ),
        Package(
            client="apt",
            name="openclipart-svg",
            version="1:0.18+dfsg-19",
            filename="openclipart-svg_1%3a0.18+dfsg-19_all.deb",
            sha256="989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
        ),
    )

    def records(self) -> Iterator[Record | Reject]:
        """The pictures in the package's order; links to other pictures, and pictures without words, are rejected."""
        pictures, drawings = self.archives()
        words = _words(drawings)
        for member in read_members(pictures, lambda name: name.endswith(".png")):
            key = _key(member.name)
            if member.link is not None:
                message = (
                    f"a picture must be a file of its own; this is a link to {member.link}, which is kept instead."
                )
                yield Reject(key, message, "link", member.name)
            else:
                yield self._record(key, member, words.get(key, ""))

    def where(self, key: str) -> str:
        """The member of the package that a record comes from."""
        return f"{self.packages[0].filename}: {ROOT}/png/{key}.png"

    def _record(self, key: str, member: Member, about: SvgAbout | str) -> Record | Reject:
        if isinstance(about, str):
            message = f"a picture must have words; {about or 'the SVG of this one is not in the package'}."
            return Reject(key, message, "no_metadata", member.name, len(member.data))
        path = PurePosixPath(key)
        spoken = ((about.title, 2.0), (about.description, 1.0), (_in_words(path.name), 1.0))
        captions: dict[str, float] = {}
        for text, weight in (*spoken, (", ".join(dict.fromkeys(about.keywords)), 1.0)):
            if text:
                captions.setdefault(text, weight)
        total = sum(captions.values())
        meta: dict[str, Any] = {
            "split": self._split(member.data),
            "category": str(path.parent),
            "artist": about.artist,
            "keywords": about.keywords,
            "licence": about.licence,
        }
        weights = tuple(w / total for w in captions.values())
        return Record.pair(key, member.data, "png", tuple(captions), weights, meta)

    def _split(self, data: bytes) -> str:
        """Drawn by what the picture looks like: 80 of them come twice, under other names and in other bytes."""
        try:
            picture = resize_image(decode_image(data), SQUASHED)
        except BadImage:
            return "train"  # packing rejects it
        place = fold("openclipart", miniature(picture[None]).numpy().tobytes().hex()) / 2**63
        if place < self.config.test:
            return "test"
        return "val" if place < self.config.test + self.config.val else "train"


def _key(name: str) -> str:
    """The path of a picture or drawing below its kind's folder, without its suffix: the two share it."""
    path = PurePosixPath(name).with_suffix("")
    parts = path.parts
    return "/".join(parts[parts.index("openclipart") + 2 :]) if "openclipart" in parts else str(path)


def _words(archive: Path) -> dict[str, SvgAbout | str]:
    """By key: what each drawing says of itself, or why it could not be read."""
    words: dict[str, SvgAbout | str] = {}
    for member in read_members(archive, lambda name: name.endswith(".svg")):
        try:
            words[_key(member.name)] = f"its SVG is a link to {member.link}" if member.link else read_about(member.data)
        except DataError as error:
            words[_key(member.name)] = str(error)
    return words


def _in_words(stem: str) -> str:
    """A file's name as a person would say it: "candied_apples_ganson_01" is "candied apples ganson"."""
    return " ".join(w for w in re.split(r"[_\-\s.]+", stem) if w and not w.isdigit())
