"""Lines, captions and figures of pages that are made up."""

import pytest

from diptych.data.page_layout import CAPTION, Box, Figure, Text, captions_of, figures_of, lines_of, unbroken


@pytest.mark.parametrize(
    "text", ["Figure 3: A fox.", "Fig. 3. A fox.", "FIG 12 - x", "Abb. 2.1: Ein Fuchs", "Photo: x"]
)
def test_how_captions_begin(text: str) -> None:
    assert CAPTION.match(text)


@pytest.mark.parametrize("text", ["Figure skating is hard", "As Figure 3: shows", "Table 3: numbers", "3: x", ""])
def test_what_is_none(text: str) -> None:
    assert not CAPTION.match(text)


def test_runs_of_one_height_are_a_line() -> None:
    runs = [
        Text(Box(10, 100, 40, 110), "Figure 1:"),
        Text(Box(43, 100, 60, 110), "bold"),
        Text(Box(200, 100, 230, 110), "column"),
        Text(Box(10, 88, 40, 98), "below"),
    ]
    assert [t.text for t in lines_of(runs)] == ["Figure 1: bold", "column", "below"]


def test_a_caption_goes_on_below_and_ends_at_a_gap() -> None:
    lines = [
        Text(Box(10, 100, 90, 110), "Figure 1: A fox that jumps over a hedge-"),
        Text(Box(10, 88, 60, 98), "hog."),
        Text(Box(10, 50, 90, 60), "The text goes on."),
        Text(Box(10, 38, 90, 48), "Fig. 2. Another."),
        Text(Box(10, 26, 90, 36), "Fig. 3. And another."),
    ]
    assert [c.text for c in captions_of(lines)] == [
        "Figure 1: A fox that jumps over a hedgehog.",
        "Fig. 2. Another.",
        "Fig. 3. And another.",
    ]


def test_words_that_were_divided_are_whole_again() -> None:
    assert unbroken(["hedge-", "hog", "x-", "Ray"]) == "hedgehog x- Ray"


def test_pictures_find_the_nearest_caption_below_or_above() -> None:
    pictures = [Box(10, 200, 60, 300), Box(70, 200, 120, 300), Box(10, 20, 120, 80), Box(200, 200, 290, 300)]
    below, above = Text(Box(10, 180, 120, 190), "Figure 1: Two parts."), Text(Box(10, 85, 120, 95), "Figure 2: Above.")
    assert figures_of(pictures, [below, above], reach=40.0) == [
        Figure(Box(10, 200, 120, 300), "Figure 1: Two parts.", 2, False),
        Figure(Box(10, 20, 120, 80), "Figure 2: Above.", 1, True),
        Figure(Box(200, 200, 290, 300), ""),
    ]
    assert all(not f.caption for f in figures_of(pictures, [below, above], reach=1.0))
