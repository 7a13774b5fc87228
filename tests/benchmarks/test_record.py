"""What goes into RESULTS.md."""

from benchmarks.figures import Comparison, Series
from benchmarks.record import Result, publish


def test_a_result_is_appended_with_every_turn_and_each_note_once(tmp_path, capsys):
    series = Series("diptych", (1.0, 3.0)), Series("open_clip", (1.0, 1.0))
    c = Comparison("what", (series[0],), (series[1],), target=4.0, notes=("said once",))
    result = Result("step", [c, c], {"diptych": {"torch": "2"}}, notes=["said once"])
    path = tmp_path / "RESULTS.md"
    publish(result, path)
    publish(result, path)
    text = path.read_text()
    assert text.startswith("# Results")
    assert text.count("## step, ") == 2
    assert text.count("- said once") == 2
    assert "NOT REACHED" in text
    assert "what, diptych: 1.00 3.00; what, open_clip: 1.00 1.00." in text
    assert "diptych: torch 2" in text
    assert "cores" in text
    assert capsys.readouterr().out
