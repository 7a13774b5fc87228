import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import diptych.train.stages as stages
from diptych.checkpoints.native import load
from diptych.core.config import from_json
from diptych.core.errors import ConfigError
from diptych.report.run_page import run_page
from diptych.train.plan import plan
from diptych.train.stages import FINISHED, pretrain
from tests.train.staged import frozen_run, pretrain_together
from tests.train.test_loop import Killed, kill_at, lines, weights
from tests.train.tiny_run import tiny_dataset


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run of two stages that nothing interrupted."""
    return pretrain(frozen_run(data, save_every_samples=16), tmp_path_factory.mktemp("whole") / "run")


def test_each_stage_is_a_run_of_its_own_and_the_last_begins_where_it_ended(whole):
    lm = whole / "stages" / "lm"
    for name in ("config.json", "recipe.json", "metrics.jsonl", "env.json", "model/tokenizer.json", FINISHED):
        assert (lm / name).exists(), name
    assert [r["samples_seen"] for r in lines(lm, kind="train")] == [16, 32, 48]
    before, after = (load_file(r / "model" / "model.safetensors") for r in (lm, whole))
    held = {n for n in after if n.startswith("language.")}
    assert held == set(before)
    assert all(torch.equal(before[n], after[n]) for n in held)
    noted = from_json((whole / "config.json").read_text())
    assert noted.parts == {"language": "stage:lm"}
    assert [r.stage for r in noted.before] == ["lm"]
    assert load(whole).tokenizer.fingerprint == load(lm).tokenizer.fingerprint
    assert load(lm).capabilities


def test_gradients_flow_through_what_is_frozen(whole):
    """Frozen: vision learns through a language model that stays as it is."""
    first, last = (load_file(p / "model.safetensors") for p in sorted((whole / "checkpoints").iterdir()))
    moved = {n.split(".")[0] for n in first if not torch.equal(first[n], last[n])}
    assert moved == {"image_tower", "connector"}


@pytest.mark.parametrize("call", [2, 5], ids=["in the first stage", "in the last run"])
def test_a_killed_run_goes_on_to_the_same_bits(data, tmp_path, monkeypatch, call, whole, capsys):
    config, run = frozen_run(data, save_every_samples=16), tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, "_apply", call)
        with pytest.raises(Killed):
            pretrain(config, run)
    assert (run / "stages/lm" / FINISHED).exists() is (call > 3)
    pretrain(config, run, resume=True)
    assert ("is done" in capsys.readouterr().err) is (call > 3)
    assert weights(run) == weights(whole)
    assert weights(run / "stages/lm") == weights(whole / "stages/lm")
    assert lines(run) == lines(whole)


def test_a_finished_stage_is_neither_trained_again_nor_changed(data, whole, tmp_path, monkeypatch):
    run = shutil.copytree(whole, tmp_path / "run")
    trained = []
    monkeypatch.setattr(stages, "train", lambda config, folder, *rest: trained.append(config.stage) or folder)
    pretrain(frozen_run(data, save_every_samples=16), run, resume=True)
    assert trained == [""]
    with pytest.raises(ConfigError, match=r"the stage lm is done, .* train\.lr = 0\.5 .* Or remove that folder"):
        pretrain(frozen_run(data, stage={"lr": 0.5}), run, resume=True)
    with pytest.raises(ConfigError, match=r"train\.samples_seen = 96"):
        pretrain(frozen_run(data, stage={"samples_seen": 96, "schedule": "constant"}), run, resume=True)
    with pytest.raises(ConfigError, match="--resume"):
        pretrain(frozen_run(data), run)


def test_mistakes_in_the_last_run_are_found_before_the_first(data, tmp_path):
    for wrong, words in (
        ({"rates": (("connectr", 2.0),)}, "train.rates must name"),
        ({"freeze": ("langage",)}, "Did you mean 'language"),
    ):
        with pytest.raises(ConfigError, match=words):
            pretrain(frozen_run(data, **wrong), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_run_whose_stage_is_not_there_says_so(data, tmp_path):
    with pytest.raises(ConfigError, match="stage:lm must have been trained"):
        stages.train(frozen_run(data), tmp_path / "run")


def test_the_plan_shows_every_stage(data):
    text = plan(frozen_run(data))
    assert text.index("stage 1 of 2: lm") < text.index("stage 2 of 2: the last")
    assert text.count("GFLOP a sample") == 2
    assert "frozen       image_tower.projection, language, " in text  # nothing reads the projection


def test_the_report_shows_the_stages_curves(whole):
    page = run_page(whole)
    assert page.index("Stage: lm") < page.index(">Curves<")


@pytest.mark.slow
def test_a_stage_may_be_the_init_and_the_teacher(data, tmp_path):
    """Names are looked up wherever a folder may stand."""
    from diptych.objectives.distillation import DistillationConfig
    from tests.train.locked import lit

    first = lit(data, freeze=("image",), frozen="live").replace(stage="first")
    second = lit(data, freeze=("image",), frozen="live").replace(stage="second", init="stage:first")
    last = lit(data, freeze=("image",)).replace(
        before=(first, second),
        tokenizer="stage:first",
        objective=DistillationConfig(teacher="stage:second", weight=1.0),
    )
    assert "its teacher, is trained" in plan(last)
    run = pretrain(last, tmp_path / "run")
    assert json.loads((run / "config.json").read_text())["objective"]["teacher"] == "stage:second"
    one, two = (load_file(run / "stages" / s / "model/model.safetensors") for s in ("first", "second"))
    assert torch.equal(one["image_tower.patch_embed.weight"], two["image_tower.patch_embed.weight"])
    assert all(r["loss"] > 0 for r in lines(run, kind="train"))


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_go_through_the_stages_as_one(tmp_path):
    """Tolerance: float32 sums split in another place, through two times three steps of Adam."""
    tiny_dataset(tmp_path / "data")
    alone = pretrain(frozen_run(tmp_path / "data"), tmp_path / "alone")
    pretrain_together(tmp_path)
    for stage in (".", "stages/lm"):
        one, other = (load_file(r / stage / "model/model.safetensors") for r in (alone, tmp_path / "together"))
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=2e-5, rtol=1e-3)
    noted = [r["val_loss_mismatched"] for r in lines(tmp_path / "together", kind="val")]
    assert noted == pytest.approx([r["val_loss_mismatched"] for r in lines(alone, kind="val")], rel=1e-3)
