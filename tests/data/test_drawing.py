import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.data.drawing import BACKGROUNDS, COLOURS, LETTERS, SHAPES, draw, extent, text_width


def _mask(program: str, colour: str, resolution: int = 200) -> np.ndarray:
    return (np.asarray(draw(program, resolution)).astype(int) == COLOURS[colour]).all(-1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_just_its_box(shape: str) -> None:
    # only wholly covered pixels count, so a sharp point ends early
    rows, columns = np.where(_mask(f"background white\n{shape} x=400 y=500 r=200 fill=blue", "blue"))
    left, top, right, bottom = (c + 40 * e for c, e in zip((80, 100, 80, 100), extent(shape), strict=True))
    assert abs(columns.min() - left) <= 3
    assert abs(columns.max() + 1 - right) <= 3
    assert abs(rows.min() - top) <= 3
    assert abs(rows.max() + 1 - bottom) <= 3


def test_a_word_lies_inside_its_box_and_every_letter_can_be_drawn() -> None:
    assert sorted(LETTERS) == [chr(c) for c in range(ord("A"), ord("Z") + 1)]
    for word in ("MAP", "QUIZ", "IT"):
        width = text_width(word, 200)
        rows, columns = np.where(_mask(f"text x=500 y=500 height=200 fill=black word={word}", "black"))
        assert columns.min() >= 100 - width / 10 - 1
        assert columns.max() <= 100 + width / 10 + 1
        assert abs(rows.min() - 80) <= 1
        assert abs(rows.max() - 119) <= 1
    drawn = {letter: draw(f"text x=500 y=500 height=800 fill=black word={letter}", 32).tobytes() for letter in LETTERS}
    assert len(set(drawn.values())) == 26


def test_background_and_resolution() -> None:
    for name, colour in BACKGROUNDS.items():
        image = draw(f"background {name}", 16)
        assert image.size == (16, 16)
        assert image.getcolors() == [(256, colour)]


@pytest.mark.parametrize(
    "line",
    [
        "circle x=1 y=2 r=3",
        "circle x=1 y=2 r=3 fill=nothing",
        "blob x=1 y=2 r=3 fill=red",
        "circle x=a y=2 r=3 fill=red",
        "background sky",
        "text x=1 y=1 height=9 fill=red word=a",
        "import os; os",
        "",
    ],
)
def test_a_wrong_line_is_named(line: str) -> None:
    with pytest.raises(DataError, match="line 2 of a drawing must be a known statement"):
        draw(f"background white\n{line}\ncircle x=1 y=2 r=3 fill=red", 16)


def test_limits() -> None:
    with pytest.raises(DataError, match="at most 100 lines; got 101"):
        draw("background white\n" * 101, 16)
    with pytest.raises(DataError, match="8 to 2048 pixels; got 5000"):
        draw("background white", 5000)
