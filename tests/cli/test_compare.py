import json

import pytest

from diptych.cli.main import main
from diptych.evals.find import save
from tests.evals.test_comparison import _result


def _said(capsys, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_two_folders_of_results_are_compared(tmp_path, capsys):
    for name, better, seed in (("a", 0.2, 0), ("b", 0.0, 1), ("b2", 0.0, 2)):
        save(_result(better=better, seed=seed), tmp_path / name)
    code, out, _ = _said(capsys, "compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "page.html")
    assert code == 0
    for text in ("* acc_at_1", "better", "zero_shot, acc_at_1: better by", "seeds are not accounted for", "Open "):
        assert text in out
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    found = json.loads(_said(capsys, "compare", tmp_path / "a", tmp_path / "b", "--b", tmp_path / "b2", "--json")[1])
    assert (found["runs_a"], found["runs_b"], found["rows"][0]["verdict"]) == (1, 2, "better")


def test_what_is_wrong_is_said(tmp_path, capsys):
    save(_result(), tmp_path / "a")
    (tmp_path / "b").mkdir()
    code, _, err = _said(capsys, "compare", tmp_path / "a", tmp_path / "b")
    assert code == 1
    assert "diptych eval A B --suite quick --data DIR" in err
    save(_result(split="test"), tmp_path / "b")
    code, out, _ = _said(capsys, "compare", tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert "zero_shot: evaluated on different splits: val, and b on test" in out
