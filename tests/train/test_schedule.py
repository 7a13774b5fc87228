import math

import pytest

from diptych.core.errors import ConfigError
from diptych.train.schedule import Schedule, choose_lr, choose_warmup, resolution_at


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
