import pytest

from diptych.cli.main import main


def say(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_without_a_name_studies_are_listed(capsys):
    code, out, _ = say(capsys, "study")
    assert code == 0
    assert "objective_efficiency  captioner, bag of words and contrastive" in out


def test_mistakes_are_told(capsys, tmp_path):
    code, _, err = say(capsys, "study", "objective_eficiency")
    assert code == 1
    assert "Did you mean 'objective_efficiency'" in err
    out = str(tmp_path / "out")
    code, _, err = say(capsys, "study", "objective_efficiency", "--data", "nowhere", "--samples", "100", "--out", out)
    assert code == 1
    assert "which is not there" in err
    code, _, err = say(capsys, "study", "objective_efficiency", "sede=3", "--out", str(tmp_path / "other"))
    assert code == 1
    assert "sede" in err
