"""`diptych caption` and `diptych ask` with a model of fresh weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.checkpoints.native import save_pretrained
from diptych.cli.main import main
from diptych.data.tokenize import Tokenizer
from diptych.models import sizes
from tests.models.writers import small_prefix_lm


def _say(capsys, *arguments: object) -> str:
    """What the command prints on standard output."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert not stop.value.code, err
    return out


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a model that writes, one that does not, two pictures and a list of answers."""
    folder = tmp_path_factory.mktemp("writing")
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["what colour is it?", "red", "blue"], vocab_size=300, context_length=40)
    for name, config in (("writer", small_prefix_lm(context_length=40)), ("clip", sizes.tiny())):
        save_pretrained(folder / name, config.build(tokenizer.vocab_size), tokenizer)
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "answers.txt").write_text("red\nblue\ngreen\n")
    return folder


def test_captions_are_printed(home, capsys):
    arguments = ["caption", home / "writer", home / "0.png", home / "1.png", "--max-tokens", "4"]
    rows = json.loads(_say(capsys, *arguments, "--json"))
    assert [r["image"] for r in rows] == [str(home / "0.png"), str(home / "1.png")]
    assert all(isinstance(r["caption"], str) for r in rows)
    table = _say(capsys, *arguments, "--beam", "2")
    assert "caption" in table
    drawn = ["--top-p", "0.9", "--temperature", "2", "--json"]
    assert _say(capsys, *arguments, *drawn, "--seed", "1") == _say(capsys, *arguments, *drawn, "--seed", "1")


def test_questions_are_answered(home, capsys):
    asked = ["ask", home / "writer", home / "0.png", "what colour is it?", "is it red?"]
    rows = json.loads(_say(capsys, *asked, "--answers", home / "answers.txt", "--json"))
    assert [r["question"] for r in rows] == ["what colour is it?"] * 3 + ["is it red?"] * 3
    assert {r["answer"] for r in rows} == {"red", "blue", "green"}
    assert sum(r["probability"] for r in rows) == pytest.approx(2)
    assert rows[0]["probability"] >= rows[1]["probability"]
    table = _say(capsys, *asked, "--answers", home / "answers.txt", "--show", "1")
    assert "probability" in table
    assert table.count("%") == 2
    rows = json.loads(_say(capsys, *asked, "--max-tokens", "3", "--json"))
    assert [r["probability"] for r in rows] == [None, None]
    assert "probability" not in _say(capsys, *asked, "--max-tokens", "3")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["caption", "clip", "0.png"], "must be asked of a model that writes; got TwoTower with embed_image"),
        (["ask", "clip", "0.png", "what?"], "such as coca:tiny or llava:tiny"),
        (["caption", "writer", "none.png"], "an image must be a file that can be read"),
        (["caption", "writer", "0.png", "--beam", "2", "--top-p", "0.5"], "beams must be 1 where tokens are drawn"),
        (["caption", "writer", "0.png", "--beam", "0"], "Generation.beams must be"),
        (["ask", "writer", "0.png", "what?", "--answers", "none.txt"], "answers must be a text file with one a line"),
        (["caption", "nowhere", "0.png"], "a model must be a folder"),
    ],
)
def test_mistakes_get_a_sentence_and_no_traceback(home, arguments, words, capsys):
    paths = [str(home / a) if a.endswith((".png", ".txt")) or a in ("clip", "writer") else a for a in arguments]
    with pytest.raises(SystemExit) as stop:
        main(paths)
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert words in error
    assert "Traceback" not in error
