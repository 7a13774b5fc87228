import math

import pytest

from diptych.core.config import from_json, override, to_json
from diptych.core.errors import ConfigError
from diptych.train.config import TrainConfig
from diptych.train.schedule import (
    Schedule,
    choose_batch,
    choose_lr,
    choose_warmup,
    choose_weight_decay,
    resolution_at,
    settle,
)
from tests.train.tiny_run import tiny_config


def rates(**changes):
    s = Schedule(**({"samples_total": 1000, "global_batch": 10, "peak_lr": 1.0, "warmup_samples": 100} | changes))
    return [s.learning_rate(i) for i in range(s.steps)]


def test_cosine_rises_to_the_peak_and_falls_towards_nothing():
    lr = rates()
    assert len(lr) == 100
    assert lr[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    for i in range(10, 100):
        assert lr[i] == pytest.approx(0.5 * (1 + math.cos(math.pi * (i - 10) / 90)))
    assert 0 < lr[-1] < 0.001


def test_constant_stays_and_cools_down_linearly():
    lr = rates(shape="constant", cooldown_samples=200)
    assert set(lr[10:81]) == {1.0}
    assert lr[80:] == pytest.approx([(100 - i) / 20 for i in range(80, 100)])
    assert set(rates(shape="constant")[10:]) == {1.0}


def test_a_longer_constant_run_begins_like_the_shorter():
    assert rates(shape="constant", samples_total=2000)[:100] == rates(shape="constant")


def test_odd_budgets_are_rounded_up_to_whole_batches_and_no_warmup_is_allowed():
    assert len(rates(samples_total=995)) == 100
    assert rates(warmup_samples=0)[0] == 1.0
    assert max(rates(warmup_samples=95)) <= 1.0


@pytest.mark.parametrize(
    ("batch", "parameters", "low", "high"),
    [
        (256, 3_300_000, 8e-4, 1.2e-3),
        (1024, 3_300_000, 1.5e-3, 2e-3),
        (4096, 151_000_000, 5e-4, 1e-3),
        (256, 5e9, 1e-4, 2e-4),
    ],
)
def test_the_chosen_rate_is_what_works_elsewhere(batch, parameters, low, high):
    lr, reason = choose_lr(batch, int(parameters))
    assert low <= lr <= high
    assert f"a batch of {batch:,}" in reason


@pytest.mark.parametrize(
    ("samples", "steps"), [(40_000, 20), (2_000, 1), (250_000, 49), (256 * 100_000, 2000), (256 * 100, 20)]
)
def test_the_chosen_warmup_is_a_small_share(samples, steps):
    warmup, reason = choose_warmup(samples, 256)
    assert warmup == steps * 256
    assert "of the budget" in reason


def test_resolution_is_a_function_of_the_samples_seen():
    side = resolution_at(100, 10, 64, ((0.0, 32), (0.5, 48), (0.75, 64)))
    assert [side(10 * i) for i in (0, 49, 50, 74, 75, 99)] == [32, 32, 48, 48, 64, 64]
    assert resolution_at(100, 10, 64)(500) == 64


@pytest.mark.parametrize("bad", [((0.1, 64),), ((0.0, 32), (0.0, 64)), ((0.0, 32), (1.0, 64)), ((0.0, 64), (0.5, 32))])
def test_wrong_resolution_schedules_are_refused(bad):
    with pytest.raises(ConfigError, match=r"train\.progressive must"):
        resolution_at(100, 10, 64, bad)


def test_images_must_have_pixels():
    with pytest.raises(ConfigError, match="at least one pixel"):
        resolution_at(10, 16, 32, ((0.0, 0), (0.5, 32)))


@pytest.mark.parametrize(
    ("records", "processes", "batch"),
    [(100, 1, 32), (5_500, 1, 256), (15_000, 1, 512), (10**9, 1, 4096), (5_500, 3, 258), (0, 1, 32)],
)
def test_the_chosen_batch_leaves_twenty_steps_an_epoch(records, processes, batch):
    found, reason = choose_batch(records, processes)
    assert found == batch
    assert f"batch {batch:,}, chosen for {records:,} records" in reason


@pytest.mark.parametrize(("epochs", "decay"), [(1, 0.2), (10, 0.2), (25, 0.5), (66, 1.0), (1000, 1.0)])
def test_the_chosen_decay_grows_with_the_epochs(epochs, decay):
    found, reason = choose_weight_decay(1_000, 1_000 * epochs)
    assert found == decay
    assert f"chosen for {epochs:,} epochs" in reason


def test_what_is_left_open_is_settled_and_what_is_given_stays(tmp_path):
    given = TrainConfig()
    assert settle(given, 5_500) == (given, "")
    config = tiny_config(tmp_path)
    words = ("lr", "warmup_samples", "weight_decay", "global_batch")
    left_open = override(config, [f"train.{word}=auto" for word in words])
    assert [getattr(left_open.train, word) for word in words] == [None, None, None, 0]
    assert from_json(to_json(left_open)) == left_open
    settled, reasons = settle(left_open.train, 40)
    assert (settled.global_batch, settled.weight_decay) == (32, 0.2)
    assert "batch 32, chosen" in reasons
    assert "decay 0.2, chosen for 3 epochs" in reasons
    assert settle(settled, 10**6) == (settled, "")
    with pytest.raises(ConfigError, match=r"train\.lr must be"):
        override(config, ["train.lr=automatic"])
