import io

from rich.console import Console

from diptych.train import display
from diptych.train.display import Display, duration, header


def test_outside_of_a_terminal_a_line_now_and_then(capsys):
    with Display(total=1000, done=0, every_s=1000.0) as shown:
        shown.update(100, 2.5, 50.0, 0.1, 1200.0)
        shown.update(1000, 1.25, 50.0, 0.1, 1200.0, 0.42)
    said = capsys.readouterr().err
    assert "100 of" not in said  # too soon after the start
    assert "1,000 of 1,000 (100%)  loss 1.250  50/s  0:00 left  waiting for data 10%  1.2 GB  MFU 42%" in said


def test_in_a_terminal_a_bar(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(display, "console", Console(file=out, force_terminal=True, width=160))
    with Display(total=1000, done=500) as shown:
        shown.update(750, 2.5, 50.0, 0.1, 1200.0)
    assert "750/1,000" in out.getvalue()
    assert "75%" in out.getvalue()
    assert "loss 2.500" in out.getvalue()


def test_other_ranks_are_silent(monkeypatch, capsys):
    monkeypatch.setattr(display, "is_main", lambda: False)
    with Display(total=10, done=0, every_s=0.0) as shown:
        shown.update(10, 1.0, 1.0, 0.0, 1.0)
    assert capsys.readouterr().err == ""


def test_facts_stand_under_each_other(capsys):
    header({"run": "here", "model": "small"})
    assert capsys.readouterr().err.splitlines() == ["  run    here", "  model  small"]


def test_durations():
    assert [duration(s) for s in (0.0, 61.0, 3723.0, 360_000.0)] == ["0:00", "1:01", "1:02:03", "100:00:00"]
