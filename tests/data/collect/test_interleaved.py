"""OBELICS's rules: what of a page is read, which images, paragraphs and pages stay. The numbers are counted by hand."""

import pytest

from diptych.data.collect.interleaved import (
    STOP_WORDS,
    InterleavedLimits,
    InterleavedReader,
    WordLists,
    check_document,
    check_image,
    check_shown,
    documents,
    paragraph_reason,
    punctuation_ratio,
    repeated_characters,
    repeated_words,
    share,
    special_ratio,
    words_of,
)
from diptych.data.collect.page import PageImage
from diptych.data.collect.page_rules import Dropped
from tests.data.pictures import encode, pixels, png

LIMITS, LISTS = InterleavedLimits(), WordLists()
GOOD = "This is a paragraph about the dog that we saw in the garden, and it was very happy."


def read(html: str) -> list:
    return [i if isinstance(i, str) else i.source for i in InterleavedReader().read(html).items]


@pytest.mark.parametrize(
    "html, items",
    [
        ("<body><p>a<ul><li>b</ul><table><tr><td>c</table><pre>d</pre><p>e", ["a\n\ne"]),
        ("<nav>a</nav><form>b</form><button>c</button><header>d</header>e", ["e"]),
        ("<div id=menu>a<div>b</div></div><div class=footer>c</div><p class='x site-info'>d</p>e", ["e"]),
        ("<div class='post-date'>1 May<p>a</p>2 May</div>b", ["a\n\nb"]),
        ("<p>a <a href=x>b</a> <strong>c</strong><br>d", ["a b c\nd"]),
        (
            "<figure><picture><source srcset=y><img src=a.png></picture><figcaption>b</figcaption></figure>",
            ["a.png", "b"],
        ),
        ("<dl><dt>a<dd>b</dl>", ["a\nb"]),
    ],
)
def test_what_is_read(html: str, items: list) -> None:
    assert read(html) == items


def test_a_read_more_ends_a_document() -> None:
    items = InterleavedReader().read("<p>a<img src=x></p><a class='b more-link'>More</a><p>c").items
    first, second = documents(items)
    assert [first[0], first[1].source] == ["a", "x"]
    assert second == ["More\n\nc"]


def test_ratios() -> None:
    assert words_of("«One», 2 two-three !! it's") == ["one", "two-three", "it's"]
    assert repeated_words(["a", "b", "c", "d", "e", "a", "b", "c", "d", "e"]) == pytest.approx(2 / 6)
    assert repeated_characters("abcdefghij" * 2) == pytest.approx(2 / 11)  # 10 runs, 1 of them twice
    assert repeated_characters("short") == 0
    assert special_ratio("ab 1") == 0.5
    assert special_ratio("नमस्ते") == 0
    assert punctuation_ratio("One two, three.") == pytest.approx(2 / 5)
    assert punctuation_ratio("One two", at_least=12) == 1
    assert share(["the", "dog"], STOP_WORDS) == 0.5


@pytest.mark.parametrize(
    "text, reason",
    [
        (GOOD, ""),
        ("Read more here", "paragraph_words"),
        ("word " * 1001, "paragraph_words"),
        ("x" * 200_000, "paragraph_characters"),
        ("the cat is on the mat " * 5, "paragraph_repeated_characters"),
        ("it is 1 2 3 4 5 6 7 8 9 on the", "paragraph_special"),
        ("Copyright Acme Widgets Incorporated Berlin Paris", "paragraph_stop_words"),
        ("we are all in this and it is not for me but you can be here with us too", "paragraph_punctuation"),
    ],
)
def test_paragraphs(text: str, reason: str) -> None:
    assert paragraph_reason(text, LIMITS, LISTS) == reason


def test_lists_of_words() -> None:
    lists = WordLists(flagged=frozenset({"dog"}))
    assert paragraph_reason(GOOD, LIMITS, lists) == "paragraph_flagged"
    assert paragraph_reason(GOOD, LIMITS, WordLists(common=frozenset({"dog"}))) == "paragraph_common"
    assert paragraph_reason("Eins zwei drei vier fünf", LIMITS, WordLists(stop=frozenset())) == ""


@pytest.mark.parametrize(
    "texts, images, reason",
    [
        ([GOOD, "But then, we went on."], 1, ""),
        ([GOOD], 0, "page_images"),
        ([GOOD], 31, "page_images"),
        (["It is here."], 1, "page_words"),
        ([GOOD, GOOD, GOOD], 1, "page_repeated_characters"),
        ([GOOD.replace(",", "").replace(".", "")], 1, "page_punctuation"),
        (["Nothing, said Anna Karenina Vronsky, is well in Saint Petersburg this year, and so on."], 1, ""),
        (
            ["Nothing, said Anna Karenina Vronsky, goes well, Saint Petersburg, this year, Moscow."],
            1,
            "page_stop_words",
        ),
        (["x" * 1_100_000], 1, "page_characters"),
    ],
)
def test_documents(texts: list[str], images: int, reason: str) -> None:
    if not reason:
        if "Anna" in texts[0]:
            texts = [texts[0].replace("is well", "is as well as it was")]
        return check_document(texts, images, LIMITS, LISTS)
    with pytest.raises(Dropped) as dropped:
        check_document(texts, images, LIMITS, LISTS)
    assert dropped.value.reason == reason


def test_images() -> None:
    check_image(png(0, height=150, width=300), LIMITS)
    for data, reason in (
        (png(0, height=149, width=200), "image_side"),
        (png(0, height=150, width=301), "image_aspect"),
        (encode(pixels(0, 200, 200), "GIF"), "format"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
    ):
        with pytest.raises(Dropped) as dropped:
            check_image(data, LIMITS)
        assert dropped.value.reason == reason
    for size, small in (("200", False), ("100px", True), ("50%", False), ("auto", False), ("9", True)):
        image = PageImage(0, {"width": size}, "a")
        if small:
            with pytest.raises(Dropped, match="a page must show"):
                check_shown(image, LIMITS)
        else:
            check_shown(image, LIMITS)
