import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import diptych.train.loop as loop
from diptych.checkpoints.native import load
from diptych.core.config import from_json
from diptych.core.errors import ConfigError, TrainingError
from diptych.core.image_format import ImageFormat
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.train.doctor import Finding
from diptych.train.loop import train
from diptych.train.resume import RunInterrupted
from tests.train import ranks
from tests.train.test_accumulate import small_vit
from tests.train.tiny_run import tiny_config

TIMED = {"samples_per_s", "data_wait", "memory_mb", "mfu"}
RICH = {"ema_decay": 0.9, "micro_batch": 6, "progressive": ((0.0, 4), (0.4, 8)), "save_every_samples": 48}
RICH |= {"log_every_samples": 32, "eval_every_samples": 64}


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


def lines(run: Path, name: str = "metrics.jsonl", kind: str | None = None) -> list[dict]:
    records = [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in TIMED} for r in records if kind in (None, r.get("kind"))]


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def kill_at(monkeypatch: pytest.MonkeyPatch, function: str, call: int) -> None:
    """Die in the n-th call of one of the loop's functions."""
    real, count = getattr(loop, function), iter(range(1, 1000))

    def deadly(*args, **kwargs):
        if next(count) == call:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, function, deadly)


def test_a_run_leaves_everything_that_the_architecture_promises(data, tmp_path, capsys):
    config = tiny_config(data, ema_decay=0.9, log_every_samples=32)
    base = config.replace(recipe="before")
    assert train(config, tmp_path / "run", base=base) == tmp_path / "run"
    run = tmp_path / "run"
    for name in ("config.json", "recipe.json", "env.json", "metrics.jsonl", "tensorboard", "model/tokenizer.json"):
        assert (run / name).exists(), name
    assert from_json((run / "config.json").read_text()) == config
    assert from_json((run / "recipe.json").read_text()).recipe == "before"
    env = json.loads((run / "env.json").read_text())
    assert env["packages"]["torch"]
    assert env["data_fingerprint"] == "21"
    found = lines(run, kind="train")
    assert [r["samples_seen"] for r in found] == [32, 64, 96, 128]
    wanted = {"loss", "i2t", "t2i", "lr", "grad_norm", "logit_scale", "chance_loss", "duplicate_captions", "epoch"}
    assert wanted | {"truncated", "nonfinite_steps", "quarantined", "step"} <= found[0].keys()
    assert found[-1]["epoch"] == pytest.approx(128 / 40)
    assert all(math.isfinite(r["val_loss"]) for r in lines(run, kind="val"))
    said = capsys.readouterr().err
    assert "8 steps of 16" in said
    assert "0.001 (given)" in said
    assert "AdamW, decay 0.2 on 3 tensors, none on 5" in said
    assert "128 of 128 (100%)" in said


def test_the_result_and_every_checkpoint_can_be_loaded(data, tmp_path):
    run = train(tiny_config(data, ema_decay=0.9, save_every_samples=64), tmp_path / "run")
    result = load(run)
    newest = sorted((run / "checkpoints").iterdir())[-1]
    averaged = load_file(newest / "ema.safetensors")
    assert all(torch.equal(t, averaged[n]) for n, t in result.model.state_dict().items())
    assert not torch.equal(
        load_file(newest / "model.safetensors")["token_embed.weight"], averaged["token_embed.weight"]
    )
    assert result.embed_text("a red dot").shape == (1, 4)
    assert [p.name for p in sorted((run / "checkpoints").iterdir())] == ["000000000064", "000000000128"]
    load(newest)


@pytest.mark.parametrize(
    ("function", "call"),
    [("_apply", 2), ("_apply", 6), ("_save", 2), ("_observe", 3), ("_finish", 1)],
    ids=["before the first checkpoint", "in a step", "in a save", "in an evaluation", "at the end"],
)
def test_a_killed_run_goes_on_to_the_same_bits(data, tmp_path, monkeypatch, function, call, uninterrupted):
    config, run = tiny_config(data, **RICH), tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, function, call)
        with pytest.raises(Killed):
            train(config, run)
    torch.manual_seed(call)  # whatever the new process's state is
    train(config, run, resume=True)
    assert weights(run) == weights(uninterrupted)
    assert lines(run) == lines(uninterrupted)


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    return train(tiny_config(data, **RICH), tmp_path_factory.mktemp("uninterrupted") / "run")


def test_killed_twice_and_a_torn_checkpoint(data, tmp_path, monkeypatch, capsys, uninterrupted):
    config, run = tiny_config(data, **RICH), tmp_path / "run"
    for resume, call in ((False, 7), (True, 2)):
        with monkeypatch.context() as patch:
            kill_at(patch, "_apply", call)
            with pytest.raises(Killed):
                train(config, run, resume=resume)
    newest = sorted((run / "checkpoints").glob("0*"))[-1]
    content = (newest / "optimizer.safetensors").read_bytes()
    (newest / "optimizer.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (run / "checkpoints" / ".000000000112.abc").mkdir()
    train(config, run, resume=True)
    said = capsys.readouterr().err
    assert "is passed over: its optimizer.safetensors is not as it was written" in said
    assert not (run / "checkpoints" / ".000000000112.abc").exists()
    assert weights(run) == weights(uninterrupted)
    assert lines(run) == lines(uninterrupted)


@pytest.mark.slow
def test_channels_last_and_bfloat16_go_on_to_the_same_bits(data, tmp_path, monkeypatch):
    """Moments must come back in the layout of their weights, or the optimizer pairs the wrong numbers."""
    config = tiny_config(data, channels_last=True, precision="bfloat16", save_every_samples=48)
    config = config.replace(model=small_vit())
    train(config, tmp_path / "alone")
    with monkeypatch.context() as patch:
        kill_at(patch, "_apply", 5)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_rates_of_parts_go_on_to_the_same_bits(data, tmp_path, monkeypatch, optimizer):
    rates = (("image", 0.1), ("image_tower.blocks.*", 0.5))
    config = tiny_config(data, optimizer=optimizer, rates=rates, save_every_samples=48).replace(model=small_vit())
    train(config, tmp_path / "alone")
    with monkeypatch.context() as patch:
        kill_at(patch, "_apply", 5)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")
    plain = train(config.replace(train=config.train.replace(rates=())), tmp_path / "plain")
    assert weights(plain) != weights(tmp_path / "alone")


def test_sigterm_saves_says_how_to_go_on_and_does(data, tmp_path, monkeypatch, uninterrupted):
    config, run = tiny_config(data, **RICH), tmp_path / "run"
    real, count = loop._apply, iter(range(100))

    def interrupted(*args):
        if next(count) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_apply", interrupted)
        with pytest.raises(RunInterrupted, match=r"saved at 96 samples .* --resume") as stopped:
            train(config, run)
    assert stopped.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    train(config, run, resume=True)
    assert weights(run) == weights(uninterrupted)


@pytest.mark.slow
def test_checkpoints_come_in_time_where_no_cadence_is_given(data, tmp_path, monkeypatch):
    def saved(name: str, **settings: int) -> list[int]:
        run = train(tiny_config(data, samples_seen=16 * 24, keep_checkpoints=100, **settings), tmp_path / name)
        return [int(p.name) // 16 for p in sorted((run / "checkpoints").iterdir())]

    tenths = saved("unhurried")
    assert len(tenths) == 10
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    assert saved("late") == list(range(1, 25))
    assert saved("given", save_every_samples=16 * 8) == [8, 16, 24]
    assert weights(tmp_path / "late") == weights(tmp_path / "unhurried")


def test_a_finished_run_can_be_resumed_and_changes_nothing(data, tmp_path):
    config = tiny_config(data, log_every_samples=32)
    run = train(config, tmp_path / "run")
    before = weights(run), lines(run)
    train(config, run, resume=True)
    assert (weights(run), lines(run)) == before


def test_a_second_run_in_the_same_folder_is_refused(data, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="--resume"):
        train(tiny_config(data), tmp_path)


def test_a_constant_rate_can_be_made_longer(data, tmp_path):
    short = tiny_config(data, schedule="constant", lr=None, warmup_samples=None, samples_seen=64)
    longer = short.replace(train=short.train.replace(samples_seen=128))
    train(short, tmp_path / "run")
    train(longer, tmp_path / "run", resume=True)
    records = lines(tmp_path / "run", kind="train")
    assert records[-1]["samples_seen"] == 128
    assert records[-1]["lr"] == records[3]["lr"]  # what was chosen for the short one is kept


def poison(monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...]) -> None:
    """Put NaN into one gradient of these steps, before anything looks at it."""
    real, count = loop.judge, iter(range(100))

    def poisoned(objective, *rest):
        if next(count) in steps:
            objective.model.text_projection.weight.grad.fill_(math.nan)
        return real(objective, *rest)

    monkeypatch.setattr(loop, "judge", poisoned)


def test_steps_that_are_not_finite_are_skipped_counted_and_named(data, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, (2, 3))
    config = tiny_config(data, max_nonfinite_steps=2, log_every_samples=32)
    run = train(config.replace(model=config.model.replace(batch_norm=True)), tmp_path / "run")
    said = capsys.readouterr().err
    assert "step 2 (samples 32 to 48) is skipped" in said
    assert "text_projection.weight" in said
    records = lines(run, kind="train")
    assert [r["nonfinite_steps"] for r in records] == [0, 2, 2, 2]
    assert records[1]["loss"] is None
    model = load(run).model
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert model.image_tower[1].num_batches_tracked == 6  # of eight: the skipped ones leave no trace


def test_what_is_heard_late_is_the_same_and_a_skipped_step_changes_nothing(data, tmp_path, monkeypatch):
    """As on a device: steps are counted behind, and the optimizer, averages and statistics skip by themselves."""
    config = tiny_config(data, **RICH)
    config = config.replace(model=config.model.replace(batch_norm=True))

    real = loop.Outcomes
    for name in ("at_once", "late"):
        with monkeypatch.context() as patch:
            poison(patch, (3, 5))
            if name == "late":
                patch.setattr(loop, "Outcomes", lambda device: _lagging(real(device)))
            train(config, tmp_path / name)
    assert lines(tmp_path / "late") == lines(tmp_path / "at_once")
    assert weights(tmp_path / "late") == weights(tmp_path / "at_once")


def _lagging(outcomes: loop.Outcomes) -> loop.Outcomes:
    outcomes.lag = 2
    return outcomes


def test_steps_that_stay_not_finite_stop_the_run_with_a_reason(data, tmp_path, monkeypatch):
    poison(monkeypatch, tuple(range(100)))
    with pytest.raises(TrainingError, match=r"3 steps in a row were not .* Lower train.lr \(now 0.001\)"):
        train(tiny_config(data, max_nonfinite_steps=2), tmp_path / "run")


def test_the_doctors_stop_ends_the_run(data, tmp_path, monkeypatch):
    finding = Finding("sick", "stop", "It is sick.", "Rest.", 32)
    monkeypatch.setattr(loop.Doctor, "observe", lambda self, record: [finding] if record["samples_seen"] == 32 else [])
    with pytest.raises(TrainingError, match="It is sick\\. Rest"):
        train(tiny_config(data, log_every_samples=16), tmp_path / "run")
    assert lines(tmp_path / "run", "doctor.jsonl")[0]["code"] == "sick"


class CountingConfig(EvalConfig):
    def build(self) -> "Counting":
        return Counting()


class Counting(Eval):
    needs = ("embed_text",)
    headline = "count"

    def run(self, model, data, artifacts=True):
        assert not model.model.training
        count = Estimate(value=float(len(data)), low=0.0, high=1.0)
        return EvalResult(
            task="counting", data="", split=data.name, metrics={"count": count}, artifacts={"a": artifacts}
        )


def test_evals_run_during_training_and_at_the_end(data, tmp_path):
    config = tiny_config(data, eval_every_samples=64).replace(evals=(CountingConfig(), CountingConfig(split="train")))
    run = train(config, tmp_path / "run")
    found = lines(run, kind="eval")
    assert [(r["samples_seen"], r["split"], r["count"]) for r in found] == [
        (64, "val", 20), (64, "train", 40), (128, "val", 20), (128, "train", 40),
    ]  # fmt: skip
    result = json.loads((run / "evals" / "counting-val.json").read_text())
    assert result["samples_seen"] == 128
    assert result["artifacts"] == {"a": True}


def test_a_run_goes_on_when_its_init_and_tokenizer_are_gone(data, tmp_path, monkeypatch):
    first = train(tiny_config(data), tmp_path / "first")
    given = str(first / "model")
    config = tiny_config(data, save_every_samples=48).replace(init=given, tokenizer=given)
    alone = train(config, tmp_path / "alone")
    with monkeypatch.context() as patch:
        kill_at(patch, "_apply", 5)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    shutil.rmtree(first)
    train(config, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(alone)


@pytest.mark.dist
def test_two_processes_train_to_the_weights_of_one(two_processes, data, tmp_path):
    """Tolerance: float32 sums split in another place, through eight steps of Adam."""
    alone = train(ranks.steady_config(data), tmp_path / "run")
    together = two_processes / "run"
    a, b = (load_file(r / "model" / "model.safetensors") for r in (alone, together))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-5, rtol=1e-4)
    for one, two in zip(lines(alone), lines(together), strict=True):
        assert one.pop("kind") == two.pop("kind")
        assert two == pytest.approx(one, rel=1e-3, abs=1e-5)


@pytest.mark.dist
def test_two_processes_with_batch_norm_judge_the_model_that_they_save(two_processes, tmp_path):
    """Their batch norms see half a batch each, so this run is not that of one process; but its numbers are true."""
    run = shutil.copytree(two_processes / "batch_norm", tmp_path / "run")
    before = lines(run, kind="val")
    train(from_json((run / "config.json").read_text()), run, resume=True)  # done: judged again, by one process
    assert lines(run, kind="val")[-1]["val_loss"] == pytest.approx(before[-1]["val_loss"], rel=1e-5)


@pytest.mark.slow
def test_a_compiled_run_learns_the_same(data, tmp_path):
    """Compiled kernels round otherwise; eight steps of Adam keep them close. Dropout draws alike in both.

    In a process of its own: the compiler cannot trace through annotations that are executed.
    """
    script = (
        "import sys; from pathlib import Path; from diptych.train.loop import train\n"
        "from tests.train.test_accumulate import small_vit\n"
        "from tests.train.tiny_run import tiny_config\ndata, run = map(Path, sys.argv[1:])\n"
        "for name in ('plain', 'compiled'):\n"
        "    config = tiny_config(data, micro_batch=6, compile=name == 'compiled', threads=1)\n"
        "    train(config.replace(model=small_vit()), run / name)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(data), str(tmp_path)], check=True)
    a, b = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("plain", "compiled"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-3, rtol=1e-2)


def test_experts_are_balanced_logged_and_kept(data, tmp_path):
    """Of both towers, in pieces of a cached batch: whichever pieces there are, the load and so the bias is the same."""
    image = VisionTransformerConfig(width=16, depth=1, heads=2, patch_size=4, experts=4)
    text = TextTransformerConfig(width=16, depth=2, heads=2, experts=3, experts_per_token=1)
    form = ImageFormat(resolution=8)
    model = TwoTowerConfig(image_format=form, context_length=8, embed_dim=8, image=image, text=text)
    found = []
    for name, micro in (("whole", 16), ("pieces", 6)):
        config = tiny_config(data, micro_batch=micro, log_every_samples=16).replace(model=model)
        train(config, tmp_path / name)
        records = lines(tmp_path / name, kind="train")
        assert all(0 <= r["experts_idlest"] <= 1 <= r["experts_busiest"] for r in records)
        assert all(0 < r["experts_entropy"] <= 1 for r in records)
        found.append(load(tmp_path / name).model.state_dict())
    biases = [k for k in found[0] if k.endswith("mlp.bias")]
    assert len(biases) == 3
    for key in biases:
        assert found[0][key].abs().max() > 0, "it has moved"
        torch.testing.assert_close(found[0][key], found[1][key])
