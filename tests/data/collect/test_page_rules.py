"""The rules by which images get words: LAION's and cc2dataset's exactly, figures, what stands near."""

import hashlib

import pytest

from diptych.data.collect.page import Page, Reader
from diptych.data.collect.page_rules import RULES, Dropped, absolute, check_source, uid_of_link
from tests.data.pictures import png


def one(html: str) -> tuple[Page, object]:
    page = Reader().read(html)
    return page, page.images[0]


def said(rule: str, html: str) -> str:
    """The caption, or the reason why there is none."""
    try:
        return RULES[rule].caption(*one(html))
    except Dropped as dropped:
        return dropped.reason


def address(rule: str, url: str) -> str:
    try:
        check_source(url, RULES[rule].refused)
        return RULES[rule].address(url)
    except Dropped as dropped:
        return dropped.reason


@pytest.mark.parametrize(
    "alt, found",
    [
        ("a dog", "a dog"),
        ("abcd", "caption_too_short"),
        ("", "no_alt"),
        ("two\nlines\tand | bar", "two linesand   bar"),  # a tab is not printable, a bar was their column mark
        ("sch\u00c3\u00b6n ist es", "schön ist es"),
        ("x" * 3000, "x" * 2000),
        ("  ab  ", "caption_too_short"),
    ],
)
def test_laions_texts(alt: str, found: str) -> None:
    assert said("laion", f'<img src=a.png alt="{alt}">') == found


@pytest.mark.parametrize(
    "url, found",
    [
        ("https://example.org/a.jpg", "https://example.org/a.jpg"),
        ("https://example.org/a.svg", "address_refused"),
        ("https://example.org/a.gif?x", "address_refused"),
        ("data:image/png;base64,AA", "address_refused"),
        ("javascript:x()", "address_refused"),
        (f"https://{'a' * 57}.org/a.jpg", "host_too_long"),
        (f"https://{'a' * 56}.org/a.jpg", f"https://{'a' * 56}.org/a.jpg"),
        ("https://example.org/" + "a" * 3000, "https://example.org/" + "a" * 1980),
        ("/a.jpg", "bad_address"),
        ("ftp://example.org/a.jpg", "bad_address"),
        ("https://[bad/a.jpg", "bad_address"),
        ("", "no_address"),
    ],
)
def test_laions_addresses(url: str, found: str) -> None:
    assert address("laion", url) == found


def test_laions_bytes() -> None:
    for data, reason in ((png(0), "too_few_bytes"), (b"GIF89a" + b"x" * 5000, "format")):
        with pytest.raises(Dropped) as dropped:
            RULES["laion"].data(data)
        assert dropped.value.reason == reason
    RULES["laion"].data(png(0) + b"x" * 5000)


def test_cc2dataset() -> None:
    assert said("cc2dataset", '<img src=a.svg alt="a">') == "a"
    assert said("cc2dataset", "<img src=a.svg alt>") == "no_alt"
    assert address("cc2dataset", "http://example.org/a.svg") == "http://example.org/a.svg"
    assert address("cc2dataset", "mailto:a") == "bad_address"
    assert uid_of_link("a dog", "http://x/y") == hashlib.md5(b"a doghttp://x/y").hexdigest()


def test_addresses_are_joined() -> None:
    assert absolute("b.png", "http://e.org/a/") == "http://e.org/a/b.png"
    assert absolute("//c.org/b.png", "https://e.org/") == "https://c.org/b.png"
    assert absolute("http://c.org/b.png", "http://e.org") == "http://c.org/b.png"
    assert absolute("http://[x", "http://e.org") == "http://[x"
    assert absolute("//[x", "http://e.org") == "//[x"
    assert absolute("b.png", "") == "b.png"


def test_figures() -> None:
    assert said("figure", "<figure><figcaption> A  cat </figcaption><img src=a></figure>") == "A cat"
    assert said("figure", "<figure><img src=a></figure>") == "no_figcaption"
    assert said("figure", "<p>x<img src=a>") == "not_in_a_figure"


def test_surroundings() -> None:
    assert said("surrounding", "<p>far far away<p>before is here<img src=a><p>after it comes<p>more of it") == (
        "after it comes"
    )
    assert said("surrounding", "<p>far far away<p>before is here<img src=a><p>Ad") == "before is here"
    assert said("surrounding", "<img src=a><img src=b><p>after all of it") == "after all of it"
    assert said("surrounding", "<img src=a>") == "no_text_near"
