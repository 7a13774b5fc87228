"""`diptych recaption` with a model of fresh weights."""

import json

import pytest
import torch

from diptych.checkpoints.native import save_pretrained
from diptych.cli.main import main
from diptych.data.dataset import Dataset
from tests.checkpoints.tiny import clip_config
from tests.models.small_fusion import small_blip
from tests.train.tiny_run import tiny_dataset


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recaption")
    tiny_dataset(folder / "data", copies=1)
    words = Dataset.open(folder / "data").tokenizer()
    torch.manual_seed(0)
    for name, config in (("blip", small_blip()), ("clip", clip_config())):
        save_pretrained(folder / name, config.build(words.vocab_size), words)
    return folder


def _run(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_a_dataset_is_written_and_told_of(home, capsys):
    how = ["rule=better", "weight=0.5", "writing.max_tokens=3"]
    code, out, err = _run(
        capsys,
        "recaption",
        home / "data",
        "--with",
        home / "blip",
        "--filter",
        home / "clip",
        "--out",
        home / "new",
        *how,
    )
    assert code == 0, err
    assert "Captioned 20 records anew" in out
    said = json.loads((home / "new" / "recaption.json").read_text())
    assert said["records"] == said["written"] == 20
    assert len(Dataset.open(home / "new").split("train")) == 20
    code, _, err = _run(capsys, "recaption", home / "data", "--with", home / "blip", "--out", home / "new")
    assert code == 1
    assert "the output must be new, or with --overwrite a dataset" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--with", "clip"], "captions must be written by a model that writes; got TwoTower"),
        (["--with", "blip", "rule=best"], "rule must be"),
        (["--with", "blip", "writing.captions=0"], "captions must be"),
        (["--with", "nowhere"], "a model must be a folder"),
    ],
)
def test_mistakes_get_a_sentence_and_no_traceback(home, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(home)
    code, _, err = _run(capsys, "recaption", "data", *arguments, "--out", "other")
    assert code == 1
    assert words in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize("kind", ["git", "blip"])
def test_a_folder_of_a_transformers_model_writes_and_another_judges(home, capsys, tmp_path, kind):
    pytest.importorskip("transformers")
    from tests.checkpoints import test_transformers_blip as blip
    from tests.checkpoints import test_transformers_git as git

    if kind == "git":
        git.save_theirs(tmp_path / "writer")
    else:
        blip.save_theirs(tmp_path / "writer", "BlipForConditionalGeneration")
    blip.save_theirs(tmp_path / "judge", "BlipForImageTextRetrieval")
    models = ("--with", f"hf:{tmp_path / 'writer'}", "--filter", f"hf:{tmp_path / 'judge'}")
    how = ("threshold=-1000", "writing.max_tokens=4", "weight=0.5")
    code, out, err = _run(capsys, "recaption", home / "data", *models, "--out", tmp_path / "new", *how)
    assert code == 0, err
    said = json.loads((tmp_path / "new" / "recaption.json").read_text())
    made = Dataset.open(tmp_path / "new")
    assert said["records"] == said["written"] == 20
    assert said["originals_dropped"] == 0
    assert 0 < said["kept"] == made.info["captions"]["synthetic"]
    assert "captions now." in out
