"""Which images of a page are pairs, and with which words: LAION's rule, cc2dataset's, figures, the text around.

A rule looks at an image where it stands in its page and gives its caption, or a reason why there is none. LAION's are
those of its workers (crawlingathome): an address with .svg, .gif, data:image or javascript: in it is refused, one whose
host has more than 60 characters too; address and text are cut to 2,000; a text has at least 5 characters after ftfy.
Unlike theirs, an address is judged after it was joined with that of its page (theirs dropped relative ones unseen).
"""

import hashlib
import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import ftfy

from diptych.data.collect.page import Page, PageImage
from diptych.data.image_header import sniff

LAION_REFUSED = (".svg", ".gif", "data:image", "javascript:")
LAION_HOST = 60
LAION_CUT = 2000
LAION_SHORTEST = 5
LAION_FEWEST_BYTES = 5000
LAION_FORMATS = ("jpg", "png", "webp")
NEAR_WORDS = 3
"""Words that a paragraph has at least to say something of an image beside it."""
NEAR_CUT = 1000
"""Characters of it that are taken."""
MOST_ADDRESS = 8192


class Dropped(Exception):
    """Why an image of a page is no pair. `reason` is a word or two with underscores."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


class Rule(NamedTuple):
    """`caption(page, image)` is what is said of an image; raises Dropped. `refused`: what no address may hold.
    `address(url)` gives a link as the rule
    keeps it, and `data(bytes)` looks at an image that is here; both raise Dropped. `texts`: whether it needs more of a
    page than its links (which is all that a WAT has)."""

    caption: Callable[[Page, PageImage], str]
    refused: tuple[str, ...]
    address: Callable[[str], str]
    data: Callable[[bytes], None]
    texts: bool


def check_source(source: str, refused: tuple[str, ...]) -> None:
    """Raise Dropped for an address that is none, or that holds what is refused (LAION: the first 2,000 characters)."""
    if not source:
        raise Dropped("no_address", "an image must have an address; it has none.")
    found = next((part for part in refused if part in source[:LAION_CUT]), "")
    if found:
        raise Dropped("address_refused", f"an address must be of a photograph's file; got one with {found!r} in it.")


def uid_of_link(caption: str, url: str) -> str:
    """md5 of caption and link together, by which cc2dataset tells equal pairs."""
    return hashlib.md5((caption + url).encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def absolute(source: str, base: str) -> str:
    """An address joined with that of its page; as it is where that cannot be."""
    if source.startswith(("http://", "https://")) or not base:
        return source
    try:
        return urljoin(base, source)
    except ValueError:
        return source


def laion_caption(page: Page, image: PageImage) -> str:
    """LAION's text of an image: its alt, mended by ftfy, printable characters only."""
    alt = image.attributes.get("alt", "")
    text = ftfy.fix_text(alt[: 10 * LAION_CUT].replace("\n", " ")).strip()
    text = "".join(c for c in text if c.isprintable())
    if not text:
        raise Dropped("no_alt", "an image must have an alt text; it has none.")
    if len(text) < LAION_SHORTEST:
        raise Dropped("caption_too_short", f"an alt text must have at least {LAION_SHORTEST} characters; got {text!r}.")
    return text[:LAION_CUT].replace("\t", " ").replace("|", " ")


def laion_address(url: str) -> str:
    """A link as LAION keeps it."""
    url = url[:LAION_CUT].replace("\n", "")
    host = _host(url)
    if not host:
        raise Dropped("bad_address", f"an address must be one of http or https with a host; got {url[:100]!r}.")
    if len(host) > LAION_HOST:
        raise Dropped("host_too_long", f"a host must have at most {LAION_HOST} characters; got {host[:80]!r}.")
    return url


def laion_data(data: bytes) -> None:
    """LAION's limits of an image's bytes and format. (Its limit of 89,478,484 pixels lies above packing's own.)"""
    if len(data) < LAION_FEWEST_BYTES:
        raise Dropped("too_few_bytes", f"an image must have at least {LAION_FEWEST_BYTES:,} bytes; got {len(data):,}.")
    found = sniff(data)
    if found not in LAION_FORMATS:
        raise Dropped("format", f"an image must be one of {', '.join(LAION_FORMATS)}; got {found or data[:8]!r}.")


def cc2dataset_caption(page: Page, image: PageImage) -> str:
    """The alt text as it is; any will do that is not empty."""
    alt = image.attributes.get("alt", "")
    if not alt:
        raise Dropped("no_alt", "an image must have an alt text; it has none.")
    return alt


def web_address(url: str) -> str:
    """A link of http or https."""
    if not url[:8].lower().startswith(("http://", "https://")) or len(url) > MOST_ADDRESS or not _host(url):
        raise Dropped("bad_address", f"an address must be one of http or https with a host; got {url[:100]!r}.")
    return url


def figure_caption(page: Page, image: PageImage) -> str:
    """The figcaption of the figure that an image stands in."""
    if image.figure < 0:
        raise Dropped("not_in_a_figure", "an image must stand in a <figure>; it does not.")
    if not page.captions[image.figure]:
        raise Dropped("no_figcaption", "a figure must have a <figcaption> with words; it has none.")
    return page.captions[image.figure]


NEAR_ITEMS = 8
"""Items on either side that are looked at, since a gallery has no words between its images."""


def surrounding_caption(page: Page, image: PageImage) -> str:
    """The paragraph that stands nearest to an image, the one after it where two are as near."""
    at = image.place
    for distance in range(1, NEAR_ITEMS + 1):
        for place, last in ((at + distance, False), (at - distance, True)):
            item = page.items[place] if 0 <= place < len(page.items) else None
            if isinstance(item, str):
                paragraphs = [p for p in re.split(r"\n+", item) if len(p.split()) >= NEAR_WORDS]
                if paragraphs:
                    return paragraphs[-1 if last else 0].strip()[:NEAR_CUT]
    raise Dropped("no_text_near", f"an image must have a paragraph of {NEAR_WORDS} words or more near it; it has none.")


def anything(data: bytes) -> None:
    """No demand of an image's bytes beyond packing's own."""


RULES: dict[str, Rule] = {
    "laion": Rule(laion_caption, LAION_REFUSED, laion_address, laion_data, texts=False),
    "cc2dataset": Rule(cc2dataset_caption, (), web_address, anything, texts=False),
    "figure": Rule(figure_caption, (), web_address, anything, texts=True),
    "surrounding": Rule(surrounding_caption, (), web_address, anything, texts=True),
}
"""The rules that make pairs, by their names."""


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    except ValueError:
        return ""
