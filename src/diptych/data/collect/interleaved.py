"""Pages of texts and images in turn by OBELICS's rules (Laurencon et al. 2023, arXiv 2306.16527, appendix A), as far as
they need no model.

Of the page, only elements that hold prose are read (lists, tables, forms, menus and blocks of code are left out with
all that they hold), without footers, headers and menus that their class or id names, and without dates. Images: jpg,
png or webp, sides of 150 to 20,000 pixels, at most 1:2; the sides also as the page shows them. Paragraphs and
documents: number of words, repeated characters and words, special characters, stop words, punctuation; flagged and
common words where the lists are given. Language and perplexity are models' and come later, as filters. Unlike theirs,
images inside <figure> and <picture> count, relative addresses are joined as the standard has it, and a special
character is one that is no letter or mark of any script.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from diptych.core.config import Config
from diptych.data.collect.page import INLINE, PageImage, Reader
from diptych.data.collect.page_rules import Dropped
from diptych.data.collect.page_tokens import Token
from diptych.data.decode import probe
from diptych.data.image_header import BadImage, sniff

PROSE = frozenset(
    {
        *("address", "article", "aside", "blink", "blockquote", "body", "br", "caption", "center", "dd", "dl", "dt"),
        *("div", "figcaption", "h1", "h2", "h3", "h4", "h5", "h6", "hgroup", "html", "legend", "main", "marquee"),
        *("ol", "p", "section", "summary", "ul", "figure", "picture", "img", "source"),
    }
)
"""Elements that are read; those of `INLINE` are too, and any other is left out with what it holds."""
BOILERPLATE = frozenset({"footer", "header", "navigation", "nav", "navbar", "menu"})
STOP_WORDS = frozenset(
    """a about above after again against all also am an and any are as at be because been before being below between
    both but by can could did do does doing down during each few for from further had has have having he her here
    hers herself him himself his how i if in into is it its itself just like may me might more most much must my
    myself no nor not now of off on once one only or other our ours ourselves out over own same shall she should so
    some such than that the their theirs them themselves then there these they this those through to too under until
    up upon us very was we were what when where which while who whom whose why will with within without would you
    your yours yourself yourselves""".split()  # noqa: SIM905
)
"""English words that sentences are held together by."""
PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" + "’“”–—…。，、！？；：")
_PIECES = re.compile(r"[\w']+|[" + re.escape("".join(sorted(PUNCTUATION))) + "]")
PARAGRAPH_CHARACTERS, PAGE_CHARACTERS = 100_000, 1_000_000
"""What is longer is no prose, whatever its words are; counting its runs would take memory."""
END_OF_DOCUMENT = "\x00end\x00"


class InterleavedLimits(Config):
    """What a page of texts and images may be; the defaults are OBELICS's. Ratios lie in [0, 1]."""

    min_side: int = 150
    max_side: int = 20_000
    max_aspect: float = 2.0
    paragraph_words: tuple[int, int] = (4, 1000)
    paragraph_repeated_characters: float = 0.1
    paragraph_repeated_words: float = 0.1
    paragraph_special: float = 0.3
    paragraph_stop_words: float = 0.3
    paragraph_punctuation: float = 0.001
    images: tuple[int, int] = (1, 30)
    words: tuple[int, int] = (10, 2000)
    repeated_characters: float = 0.1
    repeated_words: float = 0.2
    special: float = 0.275
    stop_words: float = 0.35
    punctuation: float = 0.03
    flagged: float = 0.01
    paragraph_common: float = 0.8
    common: float = 0.9


class InterleavedReader(Reader):
    """Reads of a page what OBELICS reads of it."""

    def __init__(self) -> None:
        super().__init__()
        self._dated: list[bool] = []

    def leaves_out(self, token: Token) -> bool:
        name, get = token.name, token.attributes.get
        if name not in PROSE and name not in INLINE:
            return True
        if name == "div" and any(get(a, "") in BOILERPLATE for a in ("id", "class", "title")):
            return True
        return bool({"footer", "site-info"} & set(get("class", "").split()))

    def takes_text(self) -> bool:
        depth = len(self._open)
        return not (0 < depth <= len(self._dated) and self._dated[depth - 1])

    def opened(self, token: Token) -> None:
        depth = len(self._open)
        del self._dated[depth - 1 :]
        self._dated += [False] * (depth - 1 - len(self._dated))
        self._dated.append(token.name == "div" and "date" in token.attributes.get("class", ""))
        if "more-link" in token.attributes.get("class", "").split():
            self._flush()
            self.page.items.append(END_OF_DOCUMENT)


def documents(items: Sequence[str | PageImage]) -> list[list[str | PageImage]]:
    """The documents of a page: a "read more" ends one."""
    found: list[list[str | PageImage]] = [[]]
    for item in items:
        if item == END_OF_DOCUMENT:
            found.append([])
        else:
            found[-1].append(item)
    return [d for d in found if d]


def check_image(data: bytes, limits: InterleavedLimits) -> None:
    """Raise Dropped for an image that OBELICS would not take: format, side, aspect, shown_too_small."""
    found = sniff(data)
    if found not in ("jpg", "png", "webp"):
        raise Dropped("format", f"an image must be jpg, png or webp; got {found or data[:8]!r}.")
    try:
        header = probe(data)
    except BadImage as bad:
        raise Dropped(bad.reason, bad.message) from None
    width, height = header.width, header.height
    if not (limits.min_side <= min(width, height) and max(width, height) <= limits.max_side):
        raise Dropped(
            "image_side", f"sides must have {limits.min_side} to {limits.max_side:,} pixels; got {width} x {height}."
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Dropped("image_aspect", f"sides must be at most 1:{limits.max_aspect:g}; got {width} x {height}.")


def check_shown(image: PageImage, limits: InterleavedLimits) -> None:
    """Raise Dropped for an image that its page shows too small, or whose address OBELICS does not take."""
    for name in ("width", "height"):
        said = re.fullmatch(r"(\d{1,5})(?:px)?;?", image.attributes.get(name, "").strip())
        if said and not limits.min_side <= int(said[1]) <= limits.max_side:
            raise Dropped("shown_too_small", f"a page must show an image at {limits.min_side} pixels; got {said[0]}.")


def paragraph_reason(text: str, limits: InterleavedLimits, lists: "WordLists") -> str:
    """Why a paragraph is left out; "" where it stays."""
    if len(text) > PARAGRAPH_CHARACTERS:
        return "paragraph_characters"
    words = words_of(text)
    if not limits.paragraph_words[0] <= len(words) <= limits.paragraph_words[1]:
        return "paragraph_words"
    if repeated_characters(text) > limits.paragraph_repeated_characters:
        return "paragraph_repeated_characters"
    if repeated_words(words) > limits.paragraph_repeated_words:
        return "paragraph_repeated_words"
    if special_ratio(text) > limits.paragraph_special:
        return "paragraph_special"
    if lists.stop and share(words, lists.stop) < limits.paragraph_stop_words:
        return "paragraph_stop_words"
    if lists.flagged and share(words, lists.flagged) > limits.flagged:
        return "paragraph_flagged"
    if punctuation_ratio(text, at_least=12) < limits.paragraph_punctuation:
        return "paragraph_punctuation"
    if lists.common and share(words, lists.common) < limits.paragraph_common:
        return "paragraph_common"
    return ""


def check_document(texts: Sequence[str], images: int, limits: InterleavedLimits, lists: "WordLists") -> None:
    """Raise Dropped for a document that OBELICS would not take."""
    if not limits.images[0] <= images <= limits.images[1]:
        raise Dropped("page_images", f"a page must have {_range(limits.images)} images that are taken; got {images}.")
    text = "\n\n".join(texts)
    if len(text) > PAGE_CHARACTERS:
        raise Dropped("page_characters", f"a page must have at most {PAGE_CHARACTERS:,} characters; got {len(text):,}.")
    words = words_of(text)
    if not limits.words[0] <= len(words) <= limits.words[1]:
        raise Dropped("page_words", f"a page must have {_range(limits.words)} words; got {len(words):,}.")
    most = (
        ("page_repeated_characters", repeated_characters(text), limits.repeated_characters),
        ("page_repeated_words", repeated_words(words), limits.repeated_words),
        ("page_special", special_ratio(text), limits.special),
        ("page_flagged", share(words, lists.flagged), limits.flagged),
    )
    least = [("page_punctuation", punctuation_ratio(text), limits.punctuation)]
    least += [("page_stop_words", share(words, lists.stop), limits.stop_words)] if lists.stop else []
    least += [("page_common", share(words, lists.common), limits.common)] if lists.common else []
    for reason, found, limit in most:
        if found > limit:
            raise Dropped(
                reason, f"a page's {reason[5:].replace('_', ' ')} must be at most {limit:g}; got {found:.3f}."
            )
    for reason, found, limit in least:
        if found < limit:
            raise Dropped(
                reason, f"a page's {reason[5:].replace('_', ' ')} must be at least {limit:g}; got {found:.3f}."
            )


class WordLists(Config):
    """Words in lower case: those that hold sentences together, those that are flagged, those that are common. An empty
    list is not asked."""

    stop: frozenset[str] = STOP_WORDS
    flagged: frozenset[str] = frozenset()
    common: frozenset[str] = frozenset()


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without the special characters around them."""
    found = (_stripped(word) for word in text.lower().split())
    return [word for word in found if word]


def repeated_characters(text: str, n: int = 10) -> float:
    """The share that the most frequent runs of `n` characters have in all: of as many runs as the square root of
    their number, but not of more than occur twice (BigScience, Laurencon et al. 2022)."""
    counts = Counter(text[i : i + n] for i in range(len(text) - n + 1))
    if not counts:
        return 0.0
    often = sorted(counts.values(), reverse=True)
    top = min(int(len(often) ** 0.5), sum(c > 1 for c in often))
    return sum(often[:top]) / sum(often)


def repeated_words(words: Sequence[str], n: int = 5) -> float:
    """The share of runs of `n` words that occur more than once."""
    counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return sum(c for c in counts.values() if c > 1) / sum(counts.values()) if counts else 0.0


def special_ratio(text: str) -> float:
    """The share of characters that are special; spaces, digits and punctuation are."""
    return sum(map(is_special, text)) / len(text) if text else 0.0


def share(words: Sequence[str], of: frozenset[str]) -> float:
    """The share of words that a list holds."""
    return sum(word in of for word in words) / len(words) if words else 0.0


def punctuation_ratio(text: str, at_least: int = 0) -> float:
    """The share of punctuation marks among words and marks; 1 where there are fewer than `at_least` of both."""
    pieces = _PIECES.findall(text)
    if at_least and len(pieces) < at_least:
        return 1.0
    return sum(piece in PUNCTUATION for piece in pieces) / len(pieces) if pieces else 0.0


@lru_cache(1 << 16)
def is_special(character: str) -> bool:
    """Whether a character is no letter or mark."""
    return unicodedata.category(character)[0] not in "LM"


def _stripped(word: str) -> str:
    start, end = 0, len(word)
    while start < end and is_special(word[start]):
        start += 1
    while end > start and is_special(word[end - 1]):
        end -= 1
    return word[start:end]


def _range(limits: tuple[int, int]) -> str:
    return f"{limits[0]:,} to {limits[1]:,}"
