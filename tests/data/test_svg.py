import io
import time

import numpy as np
import pytest
from PIL import Image

from diptych.core.errors import DataError
from diptych.data.svg import read_about, render_svg

HEAD = '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" xmlns:rdf="r" xmlns:dc="d" xmlns:cc="c"'
ABOUT = """<metadata><rdf:RDF><cc:Work>
<dc:title>Candied
  Apples &amp; Pears</dc:title><dc:description>On sticks</dc:description>
<dc:subject><rdf:Bag><rdf:li>candy</rdf:li><rdf:li> food </rdf:li><rdf:li/></rdf:Bag></dc:subject>
<dc:publisher><cc:Agent><dc:title>A Project</dc:title></cc:Agent></dc:publisher>
<dc:creator><cc:Agent><dc:title>Gerald G.</dc:title></cc:Agent></dc:creator>
<cc:license rdf:resource="PublicDomain"/></cc:Work>
<cc:License><dc:title>Public Domain</dc:title></cc:License></rdf:RDF></metadata>"""


def _svg(body: str, doctype: str = "", attributes: str = ' viewBox="0 0 10 10"') -> bytes:
    return HEAD.replace("<svg", doctype + "<svg").encode() + f"{attributes}>{body}</svg>".encode()


def test_only_the_works_own_words_are_read() -> None:
    about = read_about(_svg(ABOUT))
    assert (about.title, about.description) == ("Candied Apples & Pears", "On sticks")
    assert about.keywords == ["candy", "food"]
    assert (about.artist, about.licence) == ("Gerald G.", "PublicDomain")
    assert read_about(_svg("<title>not this</title>")).title == ""


def test_a_billion_laughs_are_refused_at_once() -> None:
    laughs = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    bomb = _svg("<metadata><cc:Work><dc:title>&a9;</dc:title></cc:Work></metadata>", f"<!DOCTYPE svg [{laughs}]>")
    started = time.monotonic()
    for read in (read_about, lambda data: render_svg(data, 16)):
        with pytest.raises(DataError, match="only short entities that hold no others; got 'a1'"):
            read(bomb)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "declaration",
    [
        '<!ENTITY a SYSTEM "file:///etc/passwd">',
        '<!ENTITY % a SYSTEM "http://x/y.dtd"> %a;',
        f'<!ENTITY a "{"x" * 1000}">',
        "".join(f'<!ENTITY a{i} "x">' for i in range(101)),
    ],
    ids=["file", "parameter", "long", "many"],
)
def test_other_entities_of_attacks_are_refused(declaration: str) -> None:
    with pytest.raises(DataError, match="only short entities"):
        read_about(_svg(ABOUT, f"<!DOCTYPE svg [{declaration}]>"))


def test_harmless_entities_are_left_out_and_doctypes_not_fetched() -> None:
    title = "<metadata><cc:Work><dc:title>An &ns; apple</dc:title></cc:Work></metadata>"
    assert read_about(_svg(title, '<!DOCTYPE svg [<!ENTITY ns "http://x">]>')).title == "An apple"
    outside = '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.0//EN" "http://127.0.0.1:1/svg10.dtd">'
    assert read_about(_svg(ABOUT, outside)).artist == "Gerald G."


def test_broken_deep_and_huge_files_are_refused() -> None:
    for data, words in (
        (b"", "must be XML"),
        (b"<svg><g></svg>", "must be XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><svg/>', "must be XML"),
        (b"<g>" * 500, "nest at most 400"),
        (b" " * (33 << 20), "at most 33,554,432 bytes"),
    ):
        with pytest.raises(DataError, match=words):
            read_about(data)


def test_a_drawing_has_the_side_that_was_asked_for_and_its_colours() -> None:
    body = '<rect width="10" height="5" fill="#ff0000"/>'
    image = Image.open(io.BytesIO(render_svg(_svg(body), 40)))
    assert (image.size, image.mode) == ((40, 40), "RGBA")
    pixels = np.asarray(image)
    assert tuple(pixels[5, 20]) == (255, 0, 0, 255)
    assert pixels[35, 20, 3] == 0


@pytest.mark.parametrize(
    "body",
    [
        '<image href="/etc/passwd" width="10" height="10"/>',
        '<image xmlns:xlink="l" xlink:href="http://x/y.png" width="10" height="10"/>',
        '<image href="data:image/svg+xml;base64,AAAA" width="10" height="10"/>',
        '<rect width="10" height="10" fill="url(http://x/y#z)"/>',
        "<style>@import 'http://x/y.css';</style>",
        "<style>rect { fill: url( 'file:///etc/passwd' ) }</style>",
    ],
)
def test_a_drawing_that_reaches_outside_is_refused(body: str) -> None:
    with pytest.raises(DataError, match="must hold all it shows"):
        render_svg(_svg(body), 16)


def test_links_inside_the_file_are_fine() -> None:
    body = '<defs><rect id="r" width="9" height="9"/></defs><use href="#r" fill="url(#r)"/><a href="http://x"><g/></a>'
    assert render_svg(_svg(body), 16)


def test_a_size_in_centimetres_is_one() -> None:
    drawing = '<svg xmlns="http://www.w3.org/2000/svg" width="2cm" height="1cm"><rect width="99" height="99"/></svg>'
    with Image.open(io.BytesIO(render_svg(drawing.encode(), 40))) as image:
        assert image.size == (40, 20)
        assert image.convert("RGBA").getpixel((39, 19)) == (0, 0, 0, 255)


def test_a_drawing_of_absurd_proportions_or_without_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"20 times longer one way; got 0.001 to 1"):
        render_svg(_svg("", attributes=' viewBox="0 0 1 1000"'), 16)
    with pytest.raises(DataError, match="20 times longer one way"):
        render_svg(_svg("", attributes=' width="5000px" height="2"'), 16)
