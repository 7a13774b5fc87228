"""`diptych paint` with a fake that paints."""

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.cli.main import main
from tests.evals.fake_painter import painter


@pytest.fixture
def model(monkeypatch):
    """What any run is, here."""
    red = torch.tensor([200, 10, 20], dtype=torch.uint8).view(3, 1, 1).repeat(1, 8, 8)
    found = painter({"a red circle": red})
    monkeypatch.setattr("diptych.serve.paint.load", lambda path: found)
    return found


def _run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return stop.value.code


def test_words_and_settings_are_told_apart(model, tmp_path, capsys):
    out = tmp_path / "x.png"
    assert not _run("paint", "RUN", "a red circle", "seed=3", "guidance=4", "sampler=ddim", "--out", out)
    assert capsys.readouterr().out == f"Open {out}\n"
    assert (np.array(Image.open(out)) == [200, 10, 20]).all()
    how = model.model.asked[-1]
    assert (how.seed, how.guidance, how.sampler) == (3, 4.0, "ddim")
    assert not _run("paint", "RUN", "a red circle", "x = 3", "--out", out, "--grid", 2, "--overwrite")
    assert Image.open(out).width == 8 + 2 * 136


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=3", "--out", "x.png"], "must be given texts with words"),
        (["a circle", "sead=3", "--out", "x.png"], "Did you mean 'seed'"),
        (["a circle", "steps=many", "--out", "x.png"], "steps must be a valid integer"),
        (["a circle", "--out", "x.gif"], "must be a .png file"),
    ],
)
def test_mistakes_get_a_sentence(model, arguments, words, capsys):
    assert _run("paint", "RUN", *arguments) == 1
    assert words in capsys.readouterr().err


def test_a_picture_that_is_there_is_kept(model, tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(b"mine")
    assert _run("paint", "RUN", "a circle", "--out", tmp_path / "x.png") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "x.png").read_bytes() == b"mine"


def test_a_run_that_is_not_there(tmp_path, capsys):
    assert _run("paint", tmp_path / "nowhere", "a circle", "--out", tmp_path / "x.png") == 1
    assert "a model must be a folder" in capsys.readouterr().err
