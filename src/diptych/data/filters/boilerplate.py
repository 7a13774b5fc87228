"""Captions that tell nothing of their image: names of files, addresses, stock words, what the whole pool repeats."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, UInt64
from numpy import ndarray
from pydantic import Field

from diptych.data.candidates import CandidatePool, Rows
from diptych.data.filters.filter import Filter, FilterConfig

PHRASES = (
    *("image", "images", "img", "picture", "pictures", "pic", "photo", "photos", "photograph", "foto", "bild", "icon"),
    *("logo", "thumbnail", "banner", "avatar", "placeholder", "spacer", "blank", "default", "none", "null", "nan"),
    *("undefined", "unknown", "n/a", "alt", "alt text", "caption", "title", "no title", "no caption", "no image"),
    *("untitled", "unnamed", "stock photo", "stock image", "stock photography", "stock illustration", "stock vector"),
    *("royalty free stock photo", "royalty-free stock photo", "image not available", "no image available"),
    *("click to enlarge", "click to zoom", "click here", "view larger", "view larger image", "read more", "loading"),
    *("profile picture", "featured image", "product image", "main image", "user avatar", "screenshot", "new document"),
)
"""In lower case, without marks around them. Numbers after one ("untitled 3", "image (2)") do not make it another."""

_FILE = re.compile(
    r"[^/\\\n]{1,200}\.(?:jpe?g|png|gif|webp|bmp|tiff?|svgz?|heic|avif|psd|eps|pdf|raw|cr2|nef|mp4|mov|avi)", re.I
)
_CAMERA = re.compile(
    r"(?:_?dsc[fn]?|_?img|pict?|cimg|gopr|gp|pxl|sam|mvc|imag|image|photo|vid|mvi|scan|screen ?shot|p|hpim|wp"
    r"|whatsapp image)"
    r"[ _\-]*\d[\d_\-.: at]{3,}(?:~\d+)?",
    re.I,
)
_HASH = re.compile(r"(?=[0-9a-f\-]*\d)(?=[0-9a-f\-]*[a-f])[0-9a-f][0-9a-f\-]{14,}[0-9a-f]", re.I)
_URL = re.compile(r"(?:https?://|ftp://|www\.)\S+|(?:data|javascript):\S+", re.I)
_HOST = re.compile(
    r"(?:[a-z0-9\-]+\.)+(?:com|org|net|info|biz|edu|gov|io|co\.uk|de|fr|ru|jp|it|es|nl|eu|uk)(?:/\S*)?", re.I
)
_NUMBER_AFTER = re.compile(r"[\s_\-#(\[]*\d+[)\]]?$")


class BoilerplateConfig(FilterConfig):
    """What counts as such.

    max_count     a caption that more records than this have goes with all of them (compared in lower case, with single
                  spaces); 0: none
    phrases       captions that say nothing, in lower case
    file_names    whether names of files go (DSC_0001.JPG, IMG 2041, a hash)
    urls          "only": a caption that is nothing but addresses; "any": one that holds an address; "keep": none
    of            whether the "first" caption must say something, or "any" of a record's captions does
    """

    max_count: int = Field(default=100, ge=0)
    phrases: tuple[str, ...] = PHRASES
    file_names: bool = True
    urls: Literal["only", "any", "keep"] = "only"
    of: Literal["first", "any"] = "first"

    def build(self) -> "Boilerplate":
        """The filter."""
        return Boilerplate(self)


class Boilerplate(Filter):
    """Reasons: url, file_name, stock_phrase, no_letters (a number, signs), repeated_caption; that of the first caption
    where none says anything. Of a record without captions nothing is said."""

    gathers: ClassVar[bool] = True

    def __init__(self, config: BoilerplateConfig) -> None:
        self.config = config
        self._phrases = frozenset(_bare(p) for p in config.phrases)
        self._common: UInt64[ndarray, " m"] = np.zeros(0, np.uint64)

    def gather(self, rows: Rows, alive: Bool[ndarray, " n"]) -> Any:
        """Hashes of the captions that are left, 8 bytes each, once a record."""
        if not self.config.max_count:
            return np.zeros(0, np.uint64)
        judged = self._judged(rows)
        return _hashes(
            t for said, a in zip(judged, alive.tolist(), strict=True) if a for t in {_plain(t) for t in said}
        )

    def settle(self, gathered: Iterator[Any], pool: CandidatePool, folder: Path) -> None:
        """The hashes of those that are too many. Eight bytes a caption are held, and sorted."""
        parts = list(gathered)
        if not self.config.max_count or not sum(map(len, parts)):
            return
        values, counts = np.unique(np.concatenate(parts), return_counts=True)
        self._common = values[counts > self.config.max_count]

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """The first that holds."""
        judged = self._judged(rows)
        flat = [t for said in judged for t in said]
        many = np.isin(_hashes(map(_plain, flat)), self._common).tolist() if len(self._common) else [False] * len(flat)
        found = iter([self._of(t) or ("repeated_caption" if m else "") for t, m in zip(flat, many, strict=True)])
        reasons = [[next(found) for _ in said] for said in judged]
        return ["" if "" in said or not said else said[0] for said in reasons]

    def _judged(self, rows: Rows) -> list[list[str]]:
        """The captions of each record that count."""
        return [[t for t in (said[:1] if self.config.of == "first" else said) if t] for said in rows.captions]

    def _of(self, text: str) -> str:
        text = text.strip()
        if not text:
            return ""
        if self.config.urls != "keep" and (
            not _bare(_URL.sub("", text)) or _HOST.fullmatch(text) or (self.config.urls == "any" and _URL.search(text))
        ):
            return "no_letters" if not any(c.isalpha() for c in text) else "url"
        if self.config.file_names and any(pattern.fullmatch(text) for pattern in (_FILE, _CAMERA, _HASH)):
            return "file_name"
        if not any(c.isalpha() for c in text):
            return "no_letters"
        bare = _bare(text)
        return "stock_phrase" if bare in self._phrases or _NUMBER_AFTER.sub("", bare) in self._phrases else ""


def _bare(text: str) -> str:
    """In lower case, with single spaces, and without marks around it."""
    return " ".join(text.lower().split()).strip(" .,:;!?-_*#'\"()[]{}<>|/\\")


def _plain(text: str) -> str:
    """As captions are compared: in lower case, with single spaces."""
    return " ".join(text.lower().split())


def _hashes(texts: Iterable[str]) -> UInt64[ndarray, " n"]:
    """64 bits of a hash of each text: of a billion different ones two are alike with a chance of 3 %."""
    return np.frombuffer(b"".join(hashlib.blake2b(t.encode(), digest_size=8).digest() for t in texts), np.uint64)
