"""What is said of a PDF's pages, in what order."""

import pytest

from diptych.data.pdf_parser import PageSettings, pages
from tests.data.collect.tiny_pdf import pdf, picture, words

pytest.importorskip("pypdfium2")

PAGE = words(20, 370, "A report") + picture(50, 200, 200, 150) + words(50, 185, "Figure 1: A fox.")
WANTED = PageSettings("both", 72.0, 2048, 48.0, 0.01, 0.1, 3, 20_000, 100_000, 100_000_000)


def test_pages_come_with_their_figures_and_each_is_done() -> None:
    found = list(pages(WANTED._asdict(), pdf([PAGE, words(20, 300, "Second")])))
    assert [sorted(said) for said, _ in found] == [
        ["pages"],
        ["page", "text"],
        ["above", "box", "caption", "figure", "page", "parts"],
        ["done"],
        ["page", "text"],
        ["done"],
    ]
    assert found[2][0]["caption"] == "Figure 1: A fox."
    shapes = [None if pixels is None else pixels.shape for _, pixels in found]
    assert shapes == [None, (400, 300, 3), (150, 200, 3), None, (400, 300, 3), None]


def test_it_begins_where_it_is_told_to_and_ends_at_the_most() -> None:
    settings = WANTED._replace(take="pages", first=3)._asdict()
    found = [said for said, _ in pages(settings, pdf([words(20, 300, f"{n}") for n in range(5)]))]
    assert [said.get("page") or said.get("done") for said in found] == [None, 3, 3]
    assert found[0] == {"pages": 5}


def test_what_is_wrong_is_said() -> None:
    ((said, pixels),) = pages(WANTED._asdict(), pdf([PAGE])[:200])
    assert (said["refused"], pixels, "page" in said) == ("broken_pdf", None, False)
    found = [said for said, _ in pages(WANTED._replace(max_objects=1)._asdict(), pdf([PAGE]))]
    assert (found[1]["refused"], found[1]["page"], found[1]["part"]) == ("too_many_objects", 1, "")
    assert found[2] == {"done": 1}
