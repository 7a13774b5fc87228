"""Pages as tokens: the same tags, attributes and texts as a browser's parser sees, and never more time than a page is
long."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.data.collect.page_tokens import decode_page, tokens, unescape, unescape_attribute


def shown(page: str) -> list[tuple[str, str]]:
    return [(t.kind, t.name or t.text) for t in tokens(page)]


def test_tags_texts_and_what_is_none() -> None:
    page = (
        '<!DOCTYPE html><p CLASS=a id="b c">x &amp; y<br/><!-- no <b> --><IMG Src=\'a.png\' alt="1 > 0" alt=2></P>1 < 2'
    )
    found = list(tokens(page))
    assert shown(page) == [
        ("open", "p"),
        ("text", "x & y"),
        ("open", "br"),
        ("open", "img"),
        ("close", "p"),
        ("text", "1 "),
        ("text", "<"),
        ("text", " 2"),
    ]
    assert found[0].attributes == {"class": "a", "id": "b c"}
    assert found[3].attributes == {"src": "a.png", "alt": "1 > 0"}


def test_scripts_and_styles_are_not_told_and_titles_hold_no_tags() -> None:
    page = "<script>if (a<b) '<img src=x>'</SCRIPT><style><p></style><title>a <b> &lt;</title><p>z"
    assert shown(page) == [
        *(("open", "script"), ("close", "script"), ("open", "style"), ("close", "style"), ("open", "title")),
        *(("text", "a <b> <"), ("close", "title"), ("open", "p"), ("text", "z")),
    ]


@pytest.mark.parametrize(
    "cut", ["<p", "<img src='a", '<img alt="a>b', "<!-- a <p>", "<!", "</", "<script>a", "<a b=", "<"]
)
def test_a_page_that_ends_anywhere_ends(cut: str) -> None:
    assert [t for t in shown(f"<i>{cut}") if t[1] not in ("i", "script")] in ([], [("text", "<")])


def test_references() -> None:
    assert unescape("&eacute;&#65;&#x42;&nosuch; &copy 1") == "éAB&nosuch; © 1"
    assert unescape("&#" + "9" * 9000 + ";").startswith("&#")
    assert unescape_attribute("/x?a=1&copy=2&amp;b=3&lt") == "/x?a=1&copy=2&b=3<"


def test_attributes_are_those_of_a_browsers_parser() -> None:
    lexbor = pytest.importorskip("selectolax.lexbor")
    tags = (
        "<img src=a.png alt='x y' data-b>",
        '<img alt="&quot;q&quot; &amp; r" src = "u?a=1&b=2&copy=3"/>',
        "<img a=1 a=2 b==c 'd' / e / =f>",
        "<img\n src\t=\n'x'\falt=>",
        "<img src=a/b/>",
    )
    for tag in tags:
        node = lexbor.LexborHTMLParser(tag).css_first("img")
        theirs = {name: value or "" for name, value in node.attributes.items()}
        assert next(iter(tokens(tag))).attributes == theirs, tag


@pytest.mark.parametrize(
    "raw, charset, text",
    [
        ("é".encode(), "", "é"),
        (b"\xe9", "", "é"),
        (b"\xef\xbb\xbf\xc3\xa9", "cp1252", "é"),
        (b"<meta charset=koi8-r>\xc1", "", "<meta charset=koi8-r>а"),
        (b'<META http-equiv=x content="text/html; charset=Shift_JIS">\x82\xa0', "", None),
        (b"<meta charset=utf-16>\xc3\xa9", "", "<meta charset=utf-16>é"),
        (b"\xe9", "iso-8859-1", "é"),
        (b"\x80", "latin1", "€"),
        (b"a\0b\r\nc\rd", "", "a\ufffdb\nc\nd"),
        (b"caf\xc3", "utf-8", "caf\ufffd"),
        (b"\xe9", "unicode_escape", "é"),
        (b"\xe9", "zip", "é"),
        (b"\xe9", "punycode", "é"),
        ("é".encode("utf-16"), "", "é"),
    ],
)
def test_encodings(raw: bytes, charset: str, text: str | None) -> None:
    found = decode_page(raw, charset)
    assert found == text if text is not None else found.endswith("あ")


HOSTILE = {
    "nested": "<div>" * 20_000,
    "closed": "</div>" * 20_000,
    "formatting": "<p>" + "".join(f"<b a={i}>" for i in range(3_000)) + "</p>" + "<p>x" * 3_000,
    "attributes": "<p " + "a " * 40_000 + ">",
    "quotes": "<p a='" * 20_000,
    "comments": "<!--" * 20_000,
    "spaces": "<p a" + " " * 50_000 + "b" * 50_000,
    "angles": "<" * 20_000,
    "references": "&#" * 30_000,
    "ampersands": "&a" * 30_000,
    "scripts": "<script>" * 20_000,
    "titles": "</title" * 20_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_page_alone(name: str) -> None:
    """A tenth of a megabyte each, of what makes builders of trees take seconds, and ten times as much minutes."""
    start = time.process_time()
    for _ in tokens(HOSTILE[name]):
        pass
    assert time.process_time() - start < 2  # most take 0.02 s


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("<>/='\"ab &;#-! \n"), max_size=60))
def test_anything_is_read_to_its_end(page: str) -> None:
    for token in tokens(page):
        assert token.kind in ("open", "close", "text")
