"""The whole of the command line on a small real source: a folder of drawn pictures, from pack to search and back."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.cli.main import application, main

COLOURS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (30, 60, 220), "yellow": (240, 210, 40)}
TINY = [
    "model.image.widths=[8,16]",
    "model.image.depths=[0,1]",
    "model.text.width=32",
    "model.text.heads=1",
    "model.embed_dim=32",
    "train.samples_seen=96",
    "train.global_batch=16",
    "data.workers=0",
]


def _say(capsys, *arguments: str) -> str:
    """What the command prints on standard output."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert not stop.value.code, err
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """48 noisy squares of four colours with captions, in a csv with a label; one row's file is broken."""
    folder = tmp_path_factory.mktemp("source")
    random = np.random.default_rng(0)
    rows = ["image,caption,label"]
    for i in range(48):
        name = list(COLOURS)[i % 4]
        pixels = np.clip(np.array(COLOURS[name]) + random.normal(0, 25, (20, 20, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append(f"{i}.png,a {name} square number {i},{name}")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    rows.append("broken.png,a broken square,red")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory) -> tuple[Path, Path]:
    """(dataset, run): packed and trained once for all tests here."""
    folder = tmp_path_factory.mktemp("cli")
    for arguments in (
        ["pack", pictures, "--out", folder / "data", "--val", "0.3", "vocab_size=300", "jobs=1"],
        ["pretrain", "clip:tiny", f"data={folder / 'data'}", *TINY, "--run", folder / "run"],
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        assert not stop.value.code
    return folder / "data", folder / "run"


def test_what_was_packed_can_be_inspected(run, capsys):
    data, _ = run
    text = _say(capsys, "inspect", data)
    assert "48 records" in text
    assert "rejected    1 " in text
    assert "Twelve samples" in (data / "inspect.html").read_text()
    assert json.loads(_say(capsys, "inspect", data, "--json"))["rejected"] == 1


def test_a_run_is_evaluated_reported_and_searched(run, capsys, tmp_path):
    data, folder = run
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(COLOURS) + "\n")
    templates = tmp_path / "templates.txt"
    templates.write_text("a {} square\na {} thing\n")
    text = _say(
        capsys, "eval", folder, "--data", data, "--task", "retrieval", "--task", "zero_shot", f"classes={classes}",
        f"templates={templates}",
    )  # fmt: skip
    assert "t2i_recall_at_1" in text
    assert "acc_at_1" in text
    assert "95 % interval" in text
    as_json = _say(capsys, "eval", folder, "--data", data, "--task", "retrieval", "--split", "train", "--json")
    assert 0 <= json.loads(as_json)["t2i_recall_at_5"]["value"] <= 1
    assert "report.html" in _say(capsys, "report", folder)
    page = (folder / "report.html").read_text()
    for words in ("clip:tiny", "Confusion", "words to image", "The doctor", "Machine and versions"):
        assert words in page
    assert _say(capsys, "search", folder, "--data", data, "a red square", "-k", "3").count("square") >= 3
    hits = json.loads(_say(capsys, "search", folder, "--data", data, "--image", pictures_of(data), "-k", "2", "--json"))
    assert [h["rank"] for h in hits] == [1, 2]
    _say(capsys, "search", folder, "--data", data, "a red square", "--save", tmp_path / "found")
    assert list((tmp_path / "found").iterdir())


def pictures_of(data: Path) -> Path:
    """A picture on disk to search with."""
    path = data / "query.png"
    Image.new("RGB", (30, 20), (220, 30, 30)).save(path)
    return path


def test_a_dry_run_prints_the_plan_and_trains_nothing(run, capsys, tmp_path):
    data, _ = run
    text = _say(capsys, "pretrain", "clip:tiny", f"data={data}", "train.lr=1e-4", f"run={tmp_path / 'r'}", "--dry-run")
    for words in ("parameters", "GFLOP a sample", "GB", "train.lr = 0.0001  (recipe: 0.003)"):
        assert words in text
    assert not (tmp_path / "r").exists()


def test_a_finished_run_is_not_trained_over(run, capsys):
    data, folder = run
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "clip:tiny", f"data={data}", *TINY, "--run", str(folder)])
    assert stop.value.code == 1
    assert "--resume" in capsys.readouterr().err


def test_lists_name_what_there_is(capsys):
    assert "clip:tiny" in _say(capsys, "recipes")
    corpora = _say(capsys, "corpus", "list")
    for name in ("emoji", "openmoji", "openclipart", "fashion_mnist", "digits", "scenes"):
        assert name in corpora


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain", "clip:tinny", "data=x"], "Did you mean 'clip:tiny'"),
        (["pretrain", "clip:tiny", "data=nowhere"], "which is not there"),
        (["corpus", "get", "emojis"], "Did you mean 'emoji'"),
        (["report", "nowhere"], "a run must be a folder"),
        (["eval", "nowhere", "--data", "x", "--task", "retrieval"], "a model must be a folder"),
        (["search", "nowhere", "--data", "x"], "got both or neither"),
        (["inspect", "nowhere"], "diptych pack"),
        (["convert", "open_clip", "x", "y"], "which is not there"),
        (["convert", "openclip", "README.md", "y"], "open_clip"),
        (["pack", "tests", "encoding", "--out", "y"], "a setting must be field=value; got 'encoding'"),
        (["pack", "tests/cli", "--out", "y"], "a source must be a folder of images"),
        (["pack", "tests", "--out", "y", "--val", "1.5"], "PackConfig.val must be less than 1"),
        (["eval", "x", "--data", "y", "--task", "zero_shop"], "Did you mean 'zero_shot'"),
        (["eval", "x", "--data", "y", "--task", "retrieval", "classes=c.txt"], "got 'classes', which would have"),
        (["eval", "x", "captons=all", "--data", "y", "--task", "retrieval"], "captions"),
    ],
)
def test_mistakes_get_a_sentence_and_no_traceback(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert words in error
    assert "Traceback" not in error


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = "import sys; from diptych.cli.main import application; application(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert application().info.name == "diptych"


def test_settings_reach_the_source_and_the_packing(pictures, capsys, tmp_path):
    rows = (pictures.parent / "pairs.csv").read_text().splitlines()[:9]
    table = pictures.parent / "latin.csv"
    table.write_bytes("\n".join([rows[0].replace("caption", "wording"), *(f"{r}é" for r in rows[1:])]).encode("cp1252"))
    common = ["jobs=1", "vocab_size=300"]
    text = _say(
        capsys,
        "pack",
        table,
        "encoding=cp1252",
        "caption_column=wording",
        "min_side=8",
        "--out",
        tmp_path / "a",
        *common,
    )
    assert "8 of 8" in text
    text = _say(capsys, "pack", table, "encoding=cp1252", "images_only=true", "--out", tmp_path / "b", *common)
    assert "8 of 8" in text
    assert "no characters" in _say(capsys, "inspect", tmp_path / "b")
    with pytest.raises(SystemExit):
        main(["pack", str(table), "encodng=cp1252", "--out", str(tmp_path / "c")])
    assert "must be one of image_column" in capsys.readouterr().err


def test_settings_reach_the_evals_that_have_them(run, capsys):
    data, folder = run
    text = _say(
        capsys, "eval", folder, "label_field=label", "captions=all", "--data", data, "--task", "retrieval",
        "--task", "zero_shot", "templates=plain", "--json",
    )  # fmt: skip
    retrieval, zero_shot = map(json.loads, text.splitlines())
    assert "t2i_recall_at_1" in retrieval
    assert "acc_at_1" in zero_shot


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EISDIR])
def test_what_the_disk_refuses_gets_a_sentence(number, monkeypatch, capsys):
    def fails(**_: object) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("diptych.cli.main.application", lambda: fails)
    with pytest.raises(SystemExit) as stop:
        main(["recipes"])
    error = capsys.readouterr().err
    assert (stop.value.code, "some/file" in error, os.strerror(number) in error) == (1, True, True)
