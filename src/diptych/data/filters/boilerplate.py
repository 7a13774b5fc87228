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
    *("image description", "picture description", "no description", "placeholder image", "default image"),
    *("cover image", "my image", "my picture", "my photo", "new image", "new picture", "test image"),
    *("sans titre", "image sans titre", "sans nom", "ohne titel", "unbenannt", "kein bild", "kein bild vorhanden"),
    *("sin título", "sin titulo", "sin nombre", "imagen", "senza titolo", "senza nome", "immagine", "sem título"),
    *("sem titulo", "sem nome", "imagem", "zonder titel", "geen titel", "naamloos", "afbeelding", "utan titel"),
    *("namnlös", "uten tittel", "uden titel", "billede", "bilde", "nimetön", "kuva", "bez tytułu", "bez názvu"),
    *("obrázek", "obraz", "без названия", "без имени", "изображение", "картинка", "фото", "başlıksız", "resim"),
    *("無題", "无题", "无标题", "名称未設定", "图片", "圖片", "图像", "画像", "写真", "사진", "이미지", "صورة"),
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
_PICTURE = r"(?:image|picture|photo|photograph)"
_PAGE_WORDS = re.compile(
    "|".join(
        (
            # counters
            r"(?:image|img|picture|pic|photo|figure|fig|plate|slide|page|item|scan|no|nr|bild|foto)s?\.?[ #:]*\d+"
            r"(?: ?(?:of|/|-|von|de|di|sur|van) ?\d+)?",
            # what asks to be pressed
            rf"(?:please )?(?:(?:click|tap) (?:for|{_PICTURE})|(?:click|tap|press) (?:here|on (?:the |this )?"
            rf"(?:{_PICTURE}|thumbnail|link)|to (?:enlarge|zoom|view|see|open|expand|download|play|watch)))\b.{{0,60}}",
            r"(?:view|see|show|read|load|browse|learn) (?:more|all|larger|details|gallery"
            rf"|(?:the )?full[ -]?(?:size|screen|resolution|article|story|details|{_PICTURE}))\b.{{0,40}}",
            r"(?:add|remove)(?: \w+)? (?:to|from)(?: your| the| my)? (?:cart|basket|bag|wish ?list)",
            r"(?:buy|shop|order|book|download|register|subscribe|apply)(?: it| this)? (?:now|here|online|today)",
            r"(?:free )?download(?: (?:file|image|pdf|this|in (?:high|low|full)[ -](?:resolution|quality)))?",
            r"share(?: (?:this|it|on|via|with)\b.{0,40})?|(?:follow|like|contact) us\b.{0,40}",
            r"zoom(?: in| out)?|print(?: this)? page|continue (?:reading|shopping)",
            rf"back to (?:the )?(?:top|home|gallery|list)|(?:next|previous|prev) (?:page|slide|post|{_PICTURE})",
            r"close (?:this )?(?:window|menu|popup)|open in (?:a )?new (?:tab|window)",
            r"(?:loading|please wait)(?:\W+(?:more|please wait|(?:the )?"
            rf"(?:{_PICTURE}|page|gallery|content|comment)s?))*(?: while .{{1,40}})?",
            r"(?:log|sign) ?(?:in|out|up)(?: to \w+| with \w+)?|subscribe to (?:our|the)\b.{0,40}",
            r"(?:cliquez|haz clic|haga clic|klicken sie|hier klicken|clicca|fai clic|clique (?:aqui|para)"
            r"|klik (?:hier|om)|нажмите)\b.{0,60}",
            # whose it is, not what it shows
            r"(?:©|\(c\)).{0,80}|copyright (?:©|\(c\)|\d{4}|by\b).{0,80}|(?:.{0,60}\W)?all rights reserved",
            rf"{_PICTURE}s?(?: credits?)?(?: by (?!(?:the|an?) )| courtesy of | © ?).{{1,60}}",
            # after a bare "photo:" a name or an agency; more than that is a description
            rf"{_PICTURE}s? ?: ?(?!(?:an?|the) )\S+(?: \S+){{0,2}}|{_PICTURE}s? ?: ?.{{1,40}}/.{{1,30}}"
            rf"|{_PICTURE}s? credits? ?: ?.{{1,60}}",
            r"(?:source|credits?|courtesy) ?: ?.{1,60}|courtesy of .{1,60}|used (?:with|by) permission\b.{0,40}",
            r"(?:posted|published|uploaded|updated|last modified|taken)(?: by \S+)?(?: on| at)? \d[\d./: \-]*",
            r"(?:posted|uploaded) by \S+(?: on .{1,30})?|for illustration(?: purposes)?(?: only)?",
            rf"(?:this )?{_PICTURE} (?:may|is|are|can) (?:be )?(?:subject to|protected by) copyright\b.{{0,40}}",
        )
    ),
    re.I,
)
"""Whole captions, in lower case and without marks around them: a click beetle stays."""
_NUMBER_AFTER = re.compile(r"[\s_\-#(\[]*\d+[)\]]?$")


class BoilerplateConfig(FilterConfig):
    """What counts as such.

    max_count     a caption that more records than this have goes with all of them (compared in lower case, with single
                  spaces); 0: none
    phrases       captions that say nothing, in lower case
    file_names    whether names of files go (DSC_0001.JPG, IMG 2041, a hash)
    page_words    whether what a page says around its pictures goes: buttons, counters, whose picture it is
    urls          "only": a caption that is nothing but addresses; "any": one that holds an address; "keep": none
    of            whether the "first" caption must say something, or "any" of a record's captions does
    """

    max_count: int = Field(default=100, ge=0)
    phrases: tuple[str, ...] = PHRASES
    file_names: bool = True
    page_words: bool = True
    urls: Literal["only", "any", "keep"] = "only"
    of: Literal["first", "any"] = "first"

    def build(self) -> "Boilerplate":
        """The filter."""
        return Boilerplate(self)


class Boilerplate(Filter):
    """Reasons: url, file_name, stock_phrase, page_words, no_letters (a number, signs), repeated_caption; that of the
    first caption where none says anything. Of a record without captions nothing is said."""

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
        if bare in self._phrases or _NUMBER_AFTER.sub("", bare) in self._phrases:
            return "stock_phrase"
        return "page_words" if self.config.page_words and _PAGE_WORDS.fullmatch(bare) else ""


def _bare(text: str) -> str:
    """In lower case, with single spaces, and without marks around it."""
    return " ".join(text.lower().split()).strip(" .,:;!?-_*#'\"()[]{}<>|/\\")


def _plain(text: str) -> str:
    """As captions are compared: in lower case, with single spaces."""
    return " ".join(text.lower().split())


def _hashes(texts: Iterable[str]) -> UInt64[ndarray, " n"]:
    """64 bits of a hash of each text: of a billion different ones two are alike with a chance of 3 %."""
    return np.frombuffer(b"".join(hashlib.blake2b(t.encode(), digest_size=8).digest() for t in texts), np.uint64)
