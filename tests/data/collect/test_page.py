"""A page's texts and images in reading order, its figures, and what it says of itself."""

import time

import pytest

from diptych.data.collect.page import MOST_OPEN, Page, Reader

PAGE = """<!-- saved from url=(0027)https://example.org/a/b.html -->
<html lang=en><head><title>The &amp; title</title><meta name=robots content=noai><base href="/c/">
<link rel="canonical" href="https://example.org/other"><a rel="nofollow license"
 href="https://creativecommons.org/licenses/by/4.0/">x</a>
<body><h1>Head</h1><p>One <b>bold</b>er <i>word</i>.<p>Two<br>lines<script>no</script><svg><text>no</text></svg>
<ul><li>item<li>item</ul>
<figure><img src=a.png alt="  an  alt "><figcaption>A <i>cap</i>tion<br>here</figcaption></figure>
after<figure><picture><source srcset=x><img data-src="b.png" src="data:image/gif;base64,AA"></picture></figure>end"""


def read(html: str) -> Page:
    return Reader().read(html)


def test_items_in_reading_order() -> None:
    page = read(PAGE)
    texts = [i if isinstance(i, str) else i.source for i in page.items]
    assert texts == [
        "Head\n\nOne bolder word.\n\nTwo\nlines\n\nitem\nitem",
        "a.png",
        "A caption\nhere\nafter",
        "b.png",
        "end",
    ]
    assert [i.place for i in page.images] == [1, 3]
    assert page.images[0].alt == "an alt"


def test_figures() -> None:
    page = read(PAGE)
    assert page.captions == ["A caption here", ""]
    assert [i.figure for i in page.images] == [0, 1]
    assert read("<img src=a><figure></figure><img src=b>").images[1].figure == -1


def test_what_it_says_of_itself() -> None:
    page = read(PAGE)
    assert (page.title, page.language, page.base) == ("The & title", "en", "/c/")
    assert page.address == "https://example.org/a/b.html"
    assert page.meta == [("robots", "noai")]
    assert (page.licence, page.cc_link) == ("CC-BY-4.0", "CC-BY-4.0")


def test_end_tags_that_are_left_out_or_wrong() -> None:
    assert read("<p>a<div>b</p>c</div>d").items == ["a\n\nb\n\nc\nd"]
    assert read("<div><table><tr><td></div>x<img src=a></table>y").images[0].source == "a"
    assert read("<template><p>no</template>yes").items == ["yes"]
    assert read("<select><option>no<option>no</select>yes").items == ["yes"]
    many = "<p>x" * 2000 + "<figure><figcaption>c</figcaption><img src=a></figure>"
    assert read(many).captions == ["c"]


@pytest.mark.parametrize("tag", ["div", "b", "figure", "svg", "td", "template", "li", "ul"])
def test_nesting_without_end(tag: str) -> None:
    start = time.process_time()
    page = read("<p>start</p>" + f"<{tag}>" * 5_000 + "deep<img src=a>" + f"</{tag}>" * 5_000 + "<p>last")
    assert time.process_time() - start < 3
    assert isinstance(page.items[-1], str)
    assert page.items[-1].endswith("last")
    assert MOST_OPEN == 512


def test_the_same_images_and_words_as_a_browsers_parser_sees() -> None:
    lexbor = pytest.importorskip("selectolax.lexbor")
    body = "".join(
        f'<section class="c{i}"><h2>Heading {i} &amp; more</h2><p>Some <em>words</em> number {i}.</p>'
        f'<img src="/i/{i}.jpg?a=1&amp;b={i}" alt="Picture &quot;{i}&quot;"><ul><li>x{i}</li></ul></section>'
        for i in range(50)
    )
    page = read(f"<html><body>{body}</body></html>")
    tree = lexbor.LexborHTMLParser(f"<html><body>{body}</body></html>")
    theirs = [(n.attributes["src"], n.attributes["alt"]) for n in tree.css("img")]
    assert [(i.source, i.attributes["alt"]) for i in page.images] == theirs
    ours = " ".join(i for i in page.items if isinstance(i, str)).split()
    assert ours == tree.body.text(separator=" ").replace("words  number", "words number").split()
