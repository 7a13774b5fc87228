"""A page as collecting sees it: its texts and images in reading order, its figures, and what it says of itself."""

import re
from dataclasses import dataclass, field

from diptych.data.collect.licences import is_creative_commons, spdx
from diptych.data.collect.page_tokens import VOID, Token, tokens

MOST_OPEN = 512
"""Elements that are open at once; what lies deeper is read as if its tags were not there (as browsers do)."""
MOST_IMAGES = 10_000
"""Images of a page that are looked at; each takes a thousand bytes here, and a tag in the page may take five."""
CAPTION_CUT = 5000
"""Characters of a figure's caption."""
SOURCES = (
    *("src", "data-src", "data-src-fg", "data-scroll-image", "srcset", "data-lateloadsrc", "data-img-src"),
    *("data-original", "data-gt-lazy-src", "data-lazy", "data-lazy-src", "src2"),
)
"""Where an image's address may stand, in the order in which it is looked for (OBELICS); a data: link, which often only
holds the place of one that is loaded later, comes last."""
TWO_LINES = frozenset({"blockquote", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "ul"})
INLINE = frozenset(
    {
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "dfn", "em", "font", "i", "ins"),
        *("kbd", "mark", "q", "s", "samp", "shadow", "small", "span", "strike", "strong", "sub", "sup", "time", "tt"),
        *("u", "var", "wbr", "img", "picture", "source", "label", "del"),
    }
)
"""Tags that only style their text, or hold an image in it: words go on across them."""
_BOUNDS = frozenset({"td", "th", "table", "caption", "button", "object"})
"""An end tag inside one of these closes nothing that was opened outside."""
_BLOCKS = frozenset(
    {
        *("address", "article", "aside", "blockquote", "center", "div", "dl", "fieldset", "figure", "footer", "form"),
        *(
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "header",
            "hr",
            "main",
            "nav",
            "ol",
            "p",
            "pre",
            "section",
            "table",
            "ul",
        ),
    }
)
_ENDED_BY = {
    "li": frozenset({"li", "p"}),
    "dd": frozenset({"dd", "dt", "p"}),
    "dt": frozenset({"dd", "dt", "p"}),
    "td": frozenset({"td", "th", "p"}),
    "th": frozenset({"td", "th", "p"}),
    "tr": frozenset({"td", "th", "tr", "p"}),
    "option": frozenset({"option"}),
} | {name: frozenset({"p"}) for name in _BLOCKS}
"""What a start tag ends where it is open last, since its end tag may be left out."""
_SPACES = re.compile(r"[ \t\n\f]+")
_SAVED = re.compile(r"<!-- saved from url=\(\d{4}\)(\S{1,2000}) -->")


@dataclass(slots=True)
class PageImage:
    """An image of a page: its number there, its attributes, the address that they name ("": none), which figure it
    stands in (-1: none), and its place among the page's items."""

    number: int
    attributes: dict[str, str]
    source: str
    figure: int = -1
    place: int = -1

    @property
    def alt(self) -> str:
        """The text that stands for it, with single spaces."""
        return " ".join(self.attributes.get("alt", "").split())


@dataclass(slots=True)
class Page:
    """`items`: texts (paragraphs apart by an empty line) and images in reading order. `captions`: of each figure.
    `address`: what the page says its own is; `base`: at which its links start, as written. `seen_images`: how
    many it has, MOST_IMAGES of them among the items."""

    items: list[str | PageImage] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    meta: list[tuple[str, str]] = field(default_factory=list)
    title: str = ""
    base: str = ""
    address: str = ""
    language: str = ""
    licence: str = ""
    cc_link: str = ""
    seen_images: int = 0

    @property
    def images(self) -> list[PageImage]:
        """Its images in order."""
        return [i for i in self.items if isinstance(i, PageImage)]

    def add_image(self, attributes: dict[str, str], source: str, figure: int = -1) -> None:
        """The next of its images, unless it has too many."""
        if self.seen_images < MOST_IMAGES:
            self.items.append(PageImage(self.seen_images, attributes, source, figure, len(self.items)))
        self.seen_images += 1


class Reader:
    """Reads a page out of its tokens. `leaves_out(token)`: whether an element is skipped with all that it holds;
    head, and what is no text of the page, always is."""

    hidden = frozenset({"head", "template", "svg", "math", "select", "textarea", "noframes", "datalist"})

    def __init__(self) -> None:
        self.page = Page()
        self._open: list[str] = []
        self._deeper: dict[str, int] = {}
        self._skip = 0
        """How many elements were open when one that is skipped began; 0: none."""
        self._texts: list[str] = []
        self._break = ""
        self._figures: list[tuple[int, int]] = []
        """Of the figures that are open: how many elements are, and which one it is."""
        self._captions: list[list[str]] = []
        self._in_title = False

    def leaves_out(self, token: Token) -> bool:
        """Whether an element is skipped with all that it holds."""
        return token.name in self.hidden

    def takes_text(self) -> bool:
        """Whether a text that stands here counts."""
        return True

    def opened(self, token: Token) -> None:
        """A start tag that counts was read, and is open now."""

    def read(self, html: str) -> Page:
        """The page that a text is."""
        saved = _SAVED.search(html[:5000])
        for token in tokens(html):
            if token.kind == "text":
                self._text(token.text)
            elif token.kind == "open":
                self._start(token)
            else:
                self._end(token.name)
        self._flush()
        self.page.address = (saved[1] if saved else "") or self.page.address
        self.page.captions = [" ".join("".join(parts).split())[:CAPTION_CUT] for parts in self._captions]
        return self.page

    def _start(self, token: Token) -> None:
        self._about(token)
        name = token.name
        if (name == "body" or name in _BLOCKS) and "head" in self._open[:4]:
            self._end("head")  # its end tag is often left out
        while self._open and self._open[-1] in _ENDED_BY.get(name, ()):
            self._end(self._open[-1])
        void = name in VOID or (token.text == "/" and self._is_foreign(name))
        if not self._skip and not self._starts_skipping(token, void):
            self._break_at(name)
            if name == "img":
                self._image(token)
        if void:
            return
        if len(self._open) >= MOST_OPEN:
            self._deeper[name] = self._deeper.get(name, 0) + 1
            return
        self._open.append(name)
        if not self._skip:
            if name == "figure":
                self._figures.append((len(self._open), len(self._captions)))
                self._captions.append([])
            self.opened(token)

    def _is_foreign(self, name: str) -> bool:
        """Whether a tag is of SVG or MathML, where "/>" ends an element."""
        return name in ("svg", "math") or "svg" in self._open or "math" in self._open

    def _starts_skipping(self, token: Token, void: bool) -> bool:
        if not self.leaves_out(token):
            return False
        if not void and len(self._open) < MOST_OPEN:
            self._skip = len(self._open) + 1
        return True

    def _end(self, name: str) -> None:
        if name == "title":
            self._in_title = False
        if self._deeper.get(name):
            self._deeper[name] -= 1
            return
        at = len(self._open) - 1
        while at >= 0 and self._open[at] != name:
            if self._open[at] in _BOUNDS and name not in _BOUNDS:
                return
            at -= 1
        if at < 0:
            if name == "p" and not self._skip:  # one that nothing opened is an empty paragraph
                self._break_at(name)
            return
        del self._open[at:]
        self._deeper.clear()  # what lay deeper lay in it
        if self._skip > at:
            self._skip = 0
        if not self._skip:
            self._break_at(name)
        while self._figures and self._figures[-1][0] > at:
            self._figures.pop()

    def _break_at(self, name: str) -> None:
        if name in TWO_LINES:
            self._break = "\n\n"
        elif name not in INLINE and self._break != "\n\n":
            self._break = "\n"

    def _text(self, text: str) -> None:
        if self._in_title:
            self.page.title = (self.page.title + text)[:1000]
        if self._skip or not self.takes_text():
            return
        if self._figures and "figcaption" in self._open:
            self._captions[self._figures[-1][1]].append(self._break[:1] + text)
        text = _SPACES.sub(" ", text)
        if text.strip(" "):
            if self._break:
                text = text.lstrip(" ")
                if self._texts:
                    self._texts[-1] = self._texts[-1].rstrip(" ")
            self._texts.append(self._break + text if self._texts else text.lstrip(" "))
            self._break = ""
        elif self._texts and not self._break and not self._texts[-1].endswith(" "):
            self._texts.append(" ")

    def _image(self, token: Token) -> None:
        self._flush()
        named = [s for name in SOURCES if (s := _address(name, token.attributes))]
        source = next((s for s in named if s[:5].lower() != "data:"), named[0] if named else "")
        figure = self._figures[-1][1] if self._figures else -1
        self.page.add_image(token.attributes, source, figure)

    def _flush(self) -> None:
        text = "".join(self._texts).strip()
        if text:
            self.page.items.append(text)
        self._texts.clear()
        self._break = ""

    def _about(self, token: Token) -> None:
        """What a tag says of the page itself, wherever it stands."""
        page, get = self.page, token.attributes.get
        name = token.name
        if name == "meta" and len(page.meta) < 1000:
            page.meta.append((get("name") or get("property") or get("http-equiv") or "", get("content") or ""))
        elif name in ("a", "link"):
            link, said = get("href", ""), get("rel", "").lower().split()
            if "license" in said and link and not page.licence:
                page.licence = spdx(link)
            if "canonical" in said and link.startswith(("http://", "https://")):
                page.address = page.address or link[:2000]
            if not page.cc_link and is_creative_commons(link):
                page.cc_link = spdx(link)
        elif name == "base":
            page.base = page.base or get("href", "").strip()[:2000]
        elif name == "html":
            page.language = page.language or get("lang", "")[:20]
        elif name == "title" and "svg" not in self._open:
            self._in_title = not page.title


def _address(name: str, attributes: dict[str, str]) -> str:
    """The address in an attribute. One of several, as in a srcset, is none; but a data: link holds a comma."""
    value = attributes.get(name, "").strip()
    if value[:5].lower() == "data:":
        return value
    if name == "src":
        return value
    return "" if "," in value or " " in value else value
