"""HTML as a stream of tags and texts, in one pass whose time grows with the page and with nothing else.

A tree is not built, on purpose. Building one as HTML prescribes takes time that grows with the square of the nesting,
and a page of a hundred kilobytes can ask for gigabytes of reconstructed formatting elements; pages of a crawl do. What
collecting needs is the order of things and what is open, which a stream tells (WHATWG HTML, section 13.2.5, without
the double escaping of scripts).
"""

import codecs
import html
import re
from collections.abc import Iterator
from typing import NamedTuple

VOID = frozenset(
    {
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track"),
        "wbr",
    }
)
"""Elements that have no end tag."""
RAW = frozenset({"script", "style", "xmp", "iframe", "noembed", "noframes"})
"""Elements whose inside is no HTML; it is not told."""
TEXT_ONLY = frozenset({"title", "textarea"})
"""Elements whose inside is text without tags."""
MOST_ATTRIBUTES = 100
"""Of a tag; the rest is skipped."""
PRESCAN = 4096

_TAG = re.compile(r"</?([A-Za-z][^\s/>]*+)")
_ATTRIBUTE = re.compile(
    r"[\s/]*+(?:([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:\"([^\"]*+)(\"?+)|'([^']*+)('?+)|([^\s>]*+)))?+)?+"
)
_REFERENCE = re.compile(r"&(?:#[0-9]{1,9};?|#[xX][0-9a-fA-F]{1,8};?|[A-Za-z][A-Za-z0-9]{0,31}+(?:;|(?![=A-Za-z0-9])))")
_META_CHARSET = re.compile(rb"<meta[^>]{0,500}?charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{1,40})", re.IGNORECASE)
_LATIN = {"cp1252", "iso8859-1", "ascii"}
_KNOWN = frozenset(
    {
        *("utf-8", "utf-16-le", "utf-16-be", "koi8-r", "koi8-u", "gbk", "gb18030", "gb2312", "big5", "big5hkscs"),
        *("euc_jp", "euc_kr", "shift_jis", "cp932", "cp949", "iso2022_jp", "mac-roman", "mac-cyrillic", "cp866"),
        *("tis-620", "cp874", *(f"cp{n}" for n in range(1250, 1259)), *(f"iso8859-{n}" for n in range(1, 17))),
        "ascii",
    }
)
"""Python's names of the encodings that pages may name; its others (punycode, unicode_escape) are not for pages."""
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class Token(NamedTuple):
    """A piece of a page. `kind`: "open" (a start tag), "close", "text"; `name` of the tag in lower case; `text`;
    `attributes` by their names in lower case, the first of equal ones."""

    kind: str
    name: str
    text: str
    attributes: dict[str, str]


_NONE: dict[str, str] = {}


def decode_page(raw: bytes, charset: str = "") -> str:
    """A page's text. A byte order mark is heard first, then `charset` (of the answer's headers), then the page's own
    meta; where none says a known one, UTF-8 if it is that, else Windows-1252. Bytes that do not fit become U+FFFD."""
    for mark, name in MARKS:
        if raw.startswith(mark):
            return _clean(raw[len(mark) :].decode(name, "replace"))
    found = _META_CHARSET.search(raw[:PRESCAN])
    named = _codec(charset) or _codec(found[1].decode("ascii", "replace") if found else "")
    if found and not _codec(charset) and named.startswith("utf-16"):
        named = "utf-8"  # who could read this meta did not read UTF-16
    if not named:
        try:
            return _clean(raw.decode("utf-8"))
        except UnicodeDecodeError:
            named = "cp1252"
    return _clean(raw.decode(named, "replace"))


def tokens(page: str) -> Iterator[Token]:
    """The tags and texts of a page in their order; comments, scripts and styles are left out, references resolved."""
    place, size = 0, len(page)
    while place < size:
        start = page.find("<", place)
        if start < 0:
            start = size
        if start > place:
            yield Token("text", "", unescape(page[place:start]), _NONE)
        if start == size:
            return
        match = _TAG.match(page, start)
        if match is None:
            after = page[start + 1 : start + 2]
            if after not in ("!", "?", "/"):  # a lone "<" is text
                yield Token("text", "", "<", _NONE)
                place = start + 1
                continue
            place = _after_comment(page, start)
            if place < 0:
                return
            continue
        name = match[1].lower()
        attributes, place, closed_itself = _attributes(page, match.end())
        if place < 0:  # the page ends within a tag, which then is none
            return
        if page[start + 1] == "/":
            yield Token("close", name, "", _NONE)
            continue
        yield Token("open", name, "/" if closed_itself else "", attributes)
        if name in RAW or name in TEXT_ONLY:
            end = _end_of_raw(page, name, place)
            if name in TEXT_ONLY and end > place:
                yield Token("text", "", unescape(page[place:end]), _NONE)
            place = end


def unescape(text: str) -> str:
    """A text with its character references resolved."""
    if "&" not in text:
        return text
    try:
        return html.unescape(text)
    except ValueError:  # a number of thousands of digits
        return text


def unescape_attribute(value: str) -> str:
    """The same in an attribute, where ``&copy=`` of a link stays as it is (WHATWG HTML, 13.2.5.73)."""
    return _REFERENCE.sub(lambda m: html.unescape(m[0]), value) if "&" in value else value


def _attributes(page: str, place: int) -> tuple[dict[str, str], int, bool]:
    """(attributes, the place after the tag's ">" or -1 where it has none, whether "/>" ends it)."""
    found: dict[str, str] = {}
    size = len(page)
    while place < size:
        if page[place] == ">":
            return found, place + 1, page[place - 1] == "/"
        match = _ATTRIBUTE.match(page, place)
        assert match is not None  # it matches nothing, too
        name, double, end_double, single, end_single, bare = match.groups()
        if (double is not None and not end_double) or (single is not None and not end_single):
            return found, -1, False  # a quote that is never closed
        place = match.end()
        if name is not None and len(found) < MOST_ATTRIBUTES:
            value = double if double is not None else single if single is not None else bare or ""
            found.setdefault(name.lower(), unescape_attribute(value))
    return found, -1, False


def _after_comment(page: str, start: int) -> int:
    """The place after a comment, a doctype or anything else that is none of ours; -1 where it never ends."""
    if not page.startswith("<!--", start):
        end = page.find(">", start + 1)
        return end + 1 if end >= 0 else -1
    for short in ("<!-->", "<!--->"):
        if page.startswith(short, start):
            return start + len(short)
    end = page.find("-->", start + 4)
    return end + 3 if end >= 0 else -1


_ENDS = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in RAW | TEXT_ONLY}


def _end_of_raw(page: str, name: str, place: int) -> int:
    match = _ENDS[name].search(page, place)
    return match.start() if match is not None else len(page)


def _codec(label: str) -> str:
    """Python's name of an encoding that a page may name, else ""."""
    try:
        name = codecs.lookup(label.strip().strip("\"'")).name if label.strip() else ""
    except (LookupError, ValueError):
        return ""
    name = "utf-16-le" if name == "utf-16" else name
    if name not in _KNOWN:
        return ""
    return "cp1252" if name in _LATIN else name


def _clean(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
