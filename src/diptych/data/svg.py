"""SVG files of strangers: their metadata without expanding entities, and their picture through resvg, without links.

Nothing an SVG names is ever fetched or opened. Entities are the old trap of XML (a few lines that expand to gigabytes,
"billion laughs"): a file that nests them, or declares long ones or many, is refused before its body is parsed.
"""

import re
import xml.parsers.expat as expat
from dataclasses import dataclass, field

from diptych.core.errors import DataError

MAX_BYTES = 32 << 20
MAX_ENTITIES = 100
MAX_ENTITY_LENGTH = 200
MAX_DEPTH = 400
MAX_ASPECT = 20.0
DPI = 96.0
"""Pixels to the inch, as CSS has it: what turns a size in cm or pt into one that can be drawn."""


@dataclass(slots=True)
class SvgAbout:
    """What the RDF metadata of an SVG says of it; empty where it says nothing."""

    title: str = ""
    description: str = ""
    keywords: list[str] = field(default_factory=list)
    artist: str = ""
    licence: str = ""


def read_about(data: bytes) -> SvgAbout:
    """The Dublin Core metadata (title, description, keywords, artist, licence) of an SVG's own cc:Work.

    Errors: DataError if the file is too large, is not XML, or declares entities as only an attack does.
    """
    reader = _About()
    _parse(data, reader)
    about = reader.about
    about.title, about.description = _spaced(about.title), _spaced(about.description)
    about.keywords = [k for k in map(_spaced, about.keywords) if k]
    about.artist = _spaced(about.artist)
    return about


def render_svg(data: bytes, side: int) -> bytes:
    """A PNG of an SVG, `side` pixels wide and in proportion high, over transparency.

    Errors: DataError if the SVG is unsafe (see `read_about`), reaches for other files, or cannot be drawn.
    """
    try:
        import resvg_py
    except ImportError:
        raise DataError(
            "an SVG must be drawn by resvg; got a Python without it. Install it: pip install 'diptych[svg]'."
        ) from None
    checker = _NoLinks()
    _parse(data, checker)
    wide = checker.aspect
    if wide is not None and not 1 / MAX_ASPECT <= wide <= MAX_ASPECT:
        raise DataError(f"an SVG must be at most {MAX_ASPECT:.0f} times longer one way; got {wide:.3g} to 1. Crop it.")
    try:
        text = data.decode("utf-8")
        return bytes(resvg_py.svg_to_bytes(svg_string=text, width=side, dpi=DPI, skip_system_fonts=True))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"an SVG must be one that resvg can draw; got {error}. Mend or leave out the file.") from None


class _Reader:
    """What `_parse` calls: the path of local names is kept here."""

    def __init__(self) -> None:
        self.path: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.path.append(name.rpartition(":")[2])
        if len(self.path) > MAX_DEPTH:
            raise DataError(f"an SVG must nest at most {MAX_DEPTH} elements; got more. It was not read further.")

    def end(self, name: str) -> None:
        self.path.pop()

    def text(self, text: str) -> None:
        """Character data; references to declared entities are left out, not expanded."""


class _About(_Reader):
    """Collects the metadata; titles of the publisher and of licences lie deeper and are passed by."""

    def __init__(self) -> None:
        super().__init__()
        self.about = SvgAbout()

    def start(self, name: str, attributes: dict[str, str]) -> None:
        super().start(name, attributes)
        where = self._below_work()
        if where and where[0] == "subject" and where[-1] == "li":
            self.about.keywords.append("")
        if where == ["license"]:
            self.about.licence = next((v for k, v in attributes.items() if k.endswith("resource")), "")[:300]

    def text(self, text: str) -> None:
        where, about = self._below_work(), self.about
        if where == ["title"] and len(about.title) < 10_000:
            about.title += text
        elif where == ["description"] and len(about.description) < 100_000:
            about.description += text
        elif where and where[0] == "subject" and where[-1] == "li" and len(about.keywords[-1]) < 1000:
            about.keywords[-1] += text
        elif where and where[0] == "creator" and where[-1] == "title" and len(about.artist) < 1000:
            about.artist += text

    def _below_work(self) -> list[str]:
        return self.path[self.path.index("Work") + 1 :] if "Work" in self.path else []


_LINK = re.compile(r"\burl\(\s*['\"]?\s*(?!#)", re.IGNORECASE)


class _NoLinks(_Reader):
    """Refuses whatever reaches outside the file, and notes its proportions."""

    def __init__(self) -> None:
        super().__init__()
        self.aspect: float | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        super().start(name, attributes)
        if len(self.path) == 1:
            self.aspect = _aspect(attributes)
        for key, value in attributes.items():
            local = key.rpartition(":")[2]
            if local in ("href", "src") and self.path[-1] != "a" and not value.startswith("#"):
                raise DataError(f"an SVG must hold all it shows; got a link to {value[:60]!r}. It was not drawn.")
            if _LINK.search(value):
                raise DataError(f"an SVG must hold all it shows; got {value[:60]!r}. It was not drawn.")

    def text(self, text: str) -> None:
        if self.path and self.path[-1] == "style" and (_LINK.search(text) or "@import" in text):
            raise DataError(f"an SVG must hold all it shows; got the style {text.strip()[:60]!r}. It was not drawn.")


def _parse(data: bytes, reader: _Reader) -> None:
    """Feed `data` to `reader`, with entities off and no document type ever fetched."""
    if len(data) > MAX_BYTES:
        raise DataError(f"an SVG must have at most {MAX_BYTES:,} bytes; got {len(data):,}. It was not read.")
    parser = expat.ParserCreate()
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.buffer_text = True
    declared = 0

    def entity(name: str, is_parameter: int, value: str | None, *outside: object) -> None:
        nonlocal declared
        declared += 1
        if value is None or "&" in value or "%" in value or len(value) > MAX_ENTITY_LENGTH or declared > MAX_ENTITIES:
            raise DataError(
                f"an SVG must declare only short entities that hold no others; got {name!r}. It may be meant to fill "
                "the memory, and was not read."
            )

    parser.EntityDeclHandler = entity
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.DefaultHandler = lambda text: None  # its presence is what tells expat to expand no entity in text
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise DataError(f"an SVG must be XML; got {error}. Mend or leave out the file.") from None


def _aspect(attributes: dict[str, str]) -> float | None:
    """Width over height of the root element, from its own size if it has both, else from its viewBox."""
    sizes = [re.fullmatch(r"\s*([\d.]+)[a-z]*\s*", attributes.get(k, "")) for k in ("width", "height")]
    numbers = [m[1] for m in sizes if m]
    if len(numbers) != 2:
        numbers = re.split(r"[\s,]+", attributes.get("viewBox", "").strip())[2:4]
    try:
        width, height = map(float, numbers)
        return width / height
    except (ValueError, ZeroDivisionError):
        return None


def _spaced(text: str) -> str:
    return " ".join(text.split())
