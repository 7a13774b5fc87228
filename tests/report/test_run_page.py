import json

import pytest

from diptych.core.errors import DataError
from diptych.report.run_page import run_page
from tests.report import fake_run


def test_the_page_holds_everything_and_loads_nothing(tmp_path):
    html = run_page(fake_run.write(tmp_path / "run"))
    for words in (
        "41.0%",
        "words to image R@1",
        "39.0% to 43.0%",
        "chance 0.05%",
        "The device starves &amp; waits.",
        "Pack with --resize.",
        "a &lt;red&gt; fruit",
        "too_many_pixels",
        "train.lr",
        "0.001 (recipe: 0.0005)",
        "Confusion",
        "Recall by class",
        "ensemble of 80",
        "Similarity of 32 pairs",
        "torch",
        "rank 2",
        "retrieval, val",
        "does better than</b> the single prompt: +3.1 points",
        "cannot be told apart from</b> the bare name",
        "Does it mean what it says?",
        "two (97%), but it is one",
    ):
        assert words in html, words
    assert "http" not in html.replace("http-equiv", "")
    assert "<script" not in html


def test_a_young_run_has_a_page_too(tmp_path):
    (tmp_path / "config.json").write_text('{"recipe": "clip:tiny"}')
    assert "Nothing to complain of" in run_page(tmp_path)


def test_what_is_not_a_run_is_named(tmp_path):
    with pytest.raises(DataError, match=r"must be a folder with a config.json"):
        run_page(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="must be readable JSON"):
        run_page(tmp_path)


def test_a_model_alone_is_no_run(tmp_path):
    (tmp_path / "config.json").write_text('{"kind": "diptych.models.two_tower.TwoTowerConfig", "embed_dim": 8}')
    with pytest.raises(DataError, match="holds a model alone"):
        run_page(tmp_path)


def test_stages_come_one_after_another_before_the_last_runs_curves(tmp_path):
    run = fake_run.write(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"before": [{"stage": "first"}, {"stage": "second"}]}))
    for name in ("first", "second"):
        home = run / "stages" / name
        home.mkdir(parents=True)
        records = [{"kind": "train", "samples_seen": i, "loss": 3.0 - i} for i in range(3)]
        (home / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    html = run_page(run)
    at = [html.index(f"<h2>{name}</h2>") for name in ("Stage: first", "Stage: second", "Curves")]
    assert at == sorted(at)


def test_whatever_a_run_logs_has_a_curve_unless_it_never_changes(tmp_path):
    run = fake_run.write(tmp_path / "run")
    own = {"codebook_use": 0.5, "mlm": 2.0, "experts_entropy": 0.9, "experts_busiest": 1.5, "experts_idlest": 0.5}
    records = [
        {"kind": "train", "samples_seen": i, "step": i, "loss": 3.0 - i, "queue": 1024.0, "truncated": 0.1 * i}
        | {k: v * (1 + i) for k, v in own.items()}
        for i in range(3)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    html = run_page(run)
    for name in ("codebook use", "mlm", "experts entropy", "experts, of an even share", "idlest"):
        assert f">{name}<" in html or f"<title>{name}: " in html, name
    assert "chance nan" not in html
    for name in ("queue", "truncated", "step"):
        assert f">{name}<" not in html, name
