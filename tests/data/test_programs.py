"""Programs are pure functions of seed and number, and all of them draw."""

from diptych.data.decode import decode_image
from diptych.data.drawing import draw
from diptych.data.programs import chart_program, drawing_program
from diptych.data.svg import render_svg


def test_they_depend_on_seed_and_number_alone() -> None:
    for make in (drawing_program, chart_program):
        assert make(0, 3) == make(0, 3)
        assert len({make(s, n).code for s in range(2) for n in range(20)}) == 40


def test_every_drawing_draws() -> None:
    for n in range(20):
        program = drawing_program(1, n)
        assert program.language == "drawing"
        assert len(draw(program.code, 32).getcolors(1024) or ()) > 1


def test_every_kind_of_chart_draws() -> None:
    said = set()
    for n in range(16):
        program = chart_program(1, n)
        said.add(program.says.split()[1])
        pixels = decode_image(render_svg(program.code.encode(), 48))
        assert pixels.shape == (3, 48, 48)
        assert pixels.float().std() > 5
    assert said == {"bar", "line", "scatter", "pie"}
