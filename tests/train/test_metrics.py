import json
import math
import sys
import types

import pytest

from diptych.core.errors import ConfigError
from diptych.train.metrics import Interval, MetricsLog
from diptych.train.steady import Reported


def test_an_interval_averages_what_is_finite_and_survives_a_checkpoint():
    interval = Interval()
    interval.add(16, Reported(2), 0.1, {"loss": 1.0, "grad_norm": 3.0})
    interval.add(16, Reported(0), 0.1, {"loss": math.nan, "grad_norm": 9.0})
    interval = Interval(**json.loads(json.dumps(interval.state())))
    interval.add(16, Reported(1), 0.1, {"loss": 2.0, "grad_norm": 5.0})
    assert interval.means() == {"loss": 1.5, "grad_norm": 4.0}
    assert (interval.samples, interval.truncated) == (48, 3)
    assert Interval().means() == {"loss": None}


def test_rates_count_only_what_this_process_has_timed():
    interval = Interval(samples=1000, steps=10)
    interval.started -= 2.0
    interval.add(100, Reported(flops=7.0), 0.5, {"loss": 1.0})
    rates = interval.rates()
    assert rates["samples_per_s"] == pytest.approx(50, rel=0.05)
    assert interval.timed_flops == 7.0
    assert rates["data_wait"] == pytest.approx(0.25, rel=0.05)


def test_records_go_to_jsonl_and_tensorboard(tmp_path):
    log = MetricsLog(tmp_path)
    log.write({"kind": "train", "samples_seen": 16, "loss": 1.5, "grad_norm": math.inf})
    log.write({"kind": "val", "samples_seen": 16, "val_loss": 1.25})
    log.close()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found[0] == {"kind": "train", "samples_seen": 16, "loss": 1.5, "grad_norm": None}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(board.Tags()["scalars"]) == {"train/loss", "val/val_loss"}
    assert [(e.step, e.value) for e in board.Scalars("train/loss")] == [(16, 1.5)]


def test_trackers_that_are_asked_for_are_fed_or_missed_aloud(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"train\.wandb must be empty unless wandb is installed"):
        MetricsLog(tmp_path, wandb="project")
    calls = []
    fake = types.ModuleType("mlflow")
    fake.__spec__ = types.SimpleNamespace(name="mlflow")
    for name in ("set_experiment", "start_run", "log_metrics", "end_run"):
        setattr(fake, name, lambda *a, name=name, **k: calls.append((name, a, k)))
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    log = MetricsLog(tmp_path, mlflow="project")
    log.write({"kind": "train", "samples_seen": 16, "loss": 1.5})
    log.close()
    assert [c[0] for c in calls] == ["set_experiment", "start_run", "log_metrics", "end_run"]
    assert calls[2][1:] == (({"train/loss": 1.5},), {"step": 16})
