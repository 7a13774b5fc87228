import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diptych.core.config import flatten
from diptych.core.errors import CheckpointError, ConfigError
from diptych.data.tokenize import Tokenizer
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.objective import Objective
from diptych.train import loop
from diptych.train.ema import Ema
from diptych.train.loop import train
from diptych.train.optimizer import build_optimizer
from diptych.train.resume import (
    StopRequest,
    check_resumable,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    truncate_log,
)
from tests.objectives.tiny_model import TinyConfig, tiny_batch
from tests.train import ranks
from tests.train.tiny_run import tiny_config, tiny_dataset


def _parts(steps: int = 0) -> tuple[Objective, torch.optim.Optimizer, Ema]:
    torch.manual_seed(steps)
    objective = ContrastiveConfig().build(TinyConfig(batch_norm=True).build(280))
    optimizer, ema = build_optimizer(objective, 1e-2, 0.2, (0.9, 0.98), 1e-6), Ema(objective.model, 0.9)
    for i in range(steps):
        _step(objective, optimizer, ema, i)
    return objective, optimizer, ema


def _step(objective, optimizer, ema, seed):
    optimizer.zero_grad()
    objective(tiny_batch(seed=seed)).total.backward()
    optimizer.step()
    ema.update(objective.model)


def _save(run: Path, data: Path, samples: int, parts, keep: int = 2, **state) -> Path:
    tokenizer = Tokenizer.load(data)
    return save_checkpoint(run, *parts, tokenizer, {"samples_seen": samples, "ema_updates": 3} | state, keep)


def test_a_checkpoint_holds_everything_that_the_next_step_needs(data, tmp_path):
    parts = _parts(steps=3)
    _save(tmp_path, data, 48, parts)
    folder, state = newest_checkpoint(tmp_path)
    assert folder.name == "000000000048"
    assert state["samples_seen"] == 48
    others = _parts()
    load_checkpoint(folder, *others)
    for p in (parts, others):
        _step(*p, seed=9)
    for a, b in zip(parts[0].state_dict().values(), others[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(parts[2].state[n], t) for n, t in others[2].state.items())
    assert others[2].updates == 4


def test_only_the_newest_are_kept_and_a_torn_one_is_passed_over(data, tmp_path, capsys):
    parts = _parts(steps=1)
    for samples in (16, 32, 48):
        _save(tmp_path, data, samples, parts)
    folders = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert folders == ["000000000032", "000000000048"]
    newest = tmp_path / "checkpoints" / "000000000048"
    for broken, words in (("model.safetensors", "is missing"), ("state.json", "cannot be read")):
        (newest / broken).unlink()
        assert newest_checkpoint(tmp_path)[0].name == "000000000032"
        assert words in capsys.readouterr().err
    assert newest_checkpoint(tmp_path / "elsewhere") is None


def test_a_checkpoint_of_another_format_is_refused(data, tmp_path):
    folder = _save(tmp_path, data, 16, _parts(steps=1))
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 1 or 2; got 99"):
        newest_checkpoint(tmp_path)


def test_moments_of_a_parameter_that_is_frozen_now_are_refused(data, tmp_path):
    folder = _save(tmp_path, data, 16, _parts(steps=1))
    objective, _, ema = _parts()
    objective.model.token_embed.weight.requires_grad_(False)
    optimizer = build_optimizer(objective, 1e-2, 0.2, (0.9, 0.98), 1e-6)
    with pytest.raises(CheckpointError, match=r"token_embed\.weight must be trainable"):
        load_checkpoint(folder, objective, optimizer, ema)


def _state(config, samples=64):
    return {"samples_seen": samples, "data_fingerprint": "f", "config": json.loads(json.dumps(flatten(config)))}


def test_what_may_change_and_what_may_not(tmp_path):
    config = tiny_config(tmp_path, schedule="constant", cooldown_samples=16)
    check_resumable(config, _state(config), "f")
    watched = config.train.replace(
        save_every_samples=7, log_every_samples=7, micro_batch=3, threads=1, keep_checkpoints=9
    )
    moved = config.data.replace(path="/elsewhere", workers=5, prefetch=9)
    check_resumable(config.replace(train=watched, data=moved, recipe="other"), _state(config), "f")
    longer = config.replace(train=config.train.replace(samples_seen=256))
    check_resumable(longer, _state(config), "f")
    with pytest.raises(ConfigError, match=r"train\.samples_seen = 256 \(it was 128\)\. The cooldown has begun"):
        check_resumable(longer, _state(config, samples=128), "f")
    cosine = tiny_config(tmp_path)
    with pytest.raises(ConfigError, match="Only schedule=constant"):
        check_resumable(cosine.replace(train=cosine.train.replace(samples_seen=256)), _state(cosine), "f")
    other = config.replace(train=config.train.replace(lr=0.5, seed=3), model=TinyConfig(width=16))
    with pytest.raises(ConfigError, match=r"model\.width = 16 .*; train\.lr = 0\.5 \(it was 0\.001\); train\.seed = 3"):
        check_resumable(other, _state(config), "f")
    with pytest.raises(ConfigError, match="got other data"):
        check_resumable(config, _state(config), "g")


def test_a_run_begun_before_a_setting_existed_had_its_default(tmp_path):
    config = tiny_config(tmp_path)
    state = _state(config)
    for name in ("train.optimizer", "train.freeze", "objective.duplicates"):
        del state["config"][name]
    check_resumable(config, state, "f")
    with pytest.raises(ConfigError, match=r"train\.optimizer = 'muon' \(it was 'adamw'\)"):
        check_resumable(config.replace(train=config.train.replace(optimizer="muon")), state, "f")


def test_logs_lose_what_lies_beyond_and_what_was_torn(tmp_path):
    log = tmp_path / "metrics.jsonl"
    records = [{"samples_seen": n, "kind": k} for n in (16, 32, 48) for k in ("train", "val")]
    log.write_text("".join(json.dumps(r) + "\n" for r in records) + '{"samples_se')
    assert truncate_log(log, 32) == records[:4]
    assert truncate_log(log, 32, finished=True) == records[:3]
    assert [json.loads(line) for line in log.read_text().splitlines()] == records[:3]
    assert truncate_log(tmp_path / "none.jsonl", 32) == []


def test_a_first_signal_is_noted_a_second_one_kills(capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop.signal == signal.SIGINT
        assert "finishing this step" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def _start(data: Path, run: Path, steps: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.train.run_tiny", str(data), str(run), str(steps)]
    environment = {**os.environ, "DIPTYCH_TRUST": "tests", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _seen(run: Path) -> int:
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return max((json.loads(x)["samples_seen"] for x in lines if x.endswith("}")), default=0)


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_bit(tmp_path):
    data, steps, rng = tiny_dataset(tmp_path / "data"), 660, random.Random()
    alone = _start(data, tmp_path / "alone", steps)
    assert alone.communicate()[1]
    killed = tmp_path / "killed"
    for k in range(10):
        process = _start(data, killed, steps)
        goal = 16 * steps * (k + rng.random()) / 11
        while _seen(killed) < goal:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)  # so that it is not always just after a line of the log
        process.kill()
        process.communicate()
    last = _start(data, killed, steps)
    assert "resumed at" in last.communicate()[1]
    assert last.returncode == 0
    a, b = (run / "model" / "model.safetensors" for run in (tmp_path / "alone", killed))
    assert a.read_bytes() == b.read_bytes()
    seen = [json.loads(x)["samples_seen"] for x in (killed / "metrics.jsonl").read_text().splitlines() if "lr" in x]
    assert seen == list(range(32, 16 * steps + 1, 32))


@pytest.mark.slow
@pytest.mark.dist
def test_one_process_goes_on_as_two(tmp_path, monkeypatch):
    tiny_dataset(tmp_path / "data")
    config, real = ranks.steady_config(tmp_path / "data", save_every_samples=48), loop._apply
    count = iter(range(1, 100))
    alone = train(config, tmp_path / "alone")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_apply", lambda *a: 1 / 0 if next(count) == 6 else real(*a))
        with pytest.raises(ZeroDivisionError):
            train(config, tmp_path / "run")
    ranks.train_together(tmp_path, resume=True, save_every_samples=48)
    a, b = (load_file(tmp_path / r / "model" / "model.safetensors") for r in ("alone", "run"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-5, rtol=1e-4)
    assert alone.exists()
