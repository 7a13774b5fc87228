import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.nn.noise_schedule import NoiseScheduleConfig
from tests.reference import diffusion as plain

SD = {"beta_start": 0.00085, "beta_end": 0.012}
COURSES = [
    NoiseScheduleConfig(),
    NoiseScheduleConfig(course="linear", target="epsilon", drawn="uniform"),
    NoiseScheduleConfig(course="scaled_linear", target="v", **SD),
    NoiseScheduleConfig(course="cosine", target="x0"),
]


def pictures(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 4, 4, generator=g), torch.randn(count, 3, 4, 4, generator=g)


@pytest.mark.parametrize("config", COURSES, ids=lambda c: c.course)
def test_levels_and_targets_are_the_plain_ones(config):
    schedule, (x0, e) = config.build(), pictures()
    times = torch.tensor([3.0, 250.0, 600.0, 998.0])
    alpha, sigma = schedule.levels(times)
    wanted = [plain.levels(config, t) for t in times.tolist()]
    torch.testing.assert_close(alpha.tolist(), [w[0] for w in wanted], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(sigma.tolist(), [w[1] for w in wanted], atol=1e-6, rtol=1e-5)
    found = schedule.target(x0, e, times)
    for i, t in enumerate(times.tolist()):
        torch.testing.assert_close(found[i], plain.target(config, x0[i], e[i], t), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("target", ["epsilon", "x0", "v", "flow"])
@pytest.mark.parametrize("course", ["flow", "linear", "cosine"])
def test_any_answer_becomes_picture_and_noise(course, target):
    if (course, target) == ("flow", "epsilon"):
        return
    schedule, (x0, e) = NoiseScheduleConfig(course=course, target=target).build(), pictures()
    times = torch.tensor([10.0, 200.0, 500.0, 900.0])
    x = schedule.noised(x0, e, times)
    again, noise = schedule.split(x, schedule.target(x0, e, times), times)
    torch.testing.assert_close(again, x0, atol=1e-3, rtol=1e-3)  # divided by alpha, which is small at the end
    torch.testing.assert_close(noise, e, atol=1e-3, rtol=1e-3)


def test_betas_are_those_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    for config, theirs in (
        (COURSES[1], {"beta_schedule": "linear"}),
        (COURSES[2], {"beta_schedule": "scaled_linear", **SD}),
        (COURSES[3], {"beta_schedule": "squaredcos_cap_v2"}),
    ):
        wanted = diffusers.DDPMScheduler(**theirs).alphas_cumprod  # a product in float32, ours in float64
        torch.testing.assert_close(config.build().alphas_cumprod, wanted, atol=2e-6, rtol=1e-3)


def test_draws_lie_as_they_should():
    even = torch.linspace(0, 1, 10_001)[:-1]
    uniform = NoiseScheduleConfig(drawn="uniform").build().times_at(even)
    assert uniform.mean() == pytest.approx(500, abs=1)
    logit = NoiseScheduleConfig(logit_mean=0.5, logit_std=0.7).build().times_at(even[1:])
    assert (logit / 1000).logit().mean() == pytest.approx(0.5, abs=1e-2)
    assert (logit / 1000).logit().std() == pytest.approx(0.7, abs=1e-2)
    whole = COURSES[1].build().times_at(even)
    assert (whole == whole.floor()).all()
    assert (whole.min(), whole.max()) == (0, 999)


def test_weights_hold_the_signal_to_noise_ratio():
    times = torch.tensor([5.0, 100.0, 900.0])
    for target in ("epsilon", "x0", "v"):
        schedule = NoiseScheduleConfig(course="linear", target=target, min_snr=5).build()
        alpha, sigma = schedule.levels(times)
        snr = (alpha / sigma) ** 2
        wanted = {"epsilon": snr.clamp(max=5) / snr, "x0": snr.clamp(max=5), "v": snr.clamp(max=5) / (snr + 1)}
        torch.testing.assert_close(schedule.weights(times), wanted[target], rtol=1e-4, atol=1e-6)
    assert COURSES[0].build().weights(times).tolist() == [1, 1, 1]


def test_the_descent_ends_clean():
    flow = NoiseScheduleConfig(shift=3.0).build().descent(4)
    torch.testing.assert_close(flow, torch.tensor([1000, 900, 750, 500, 0.0]))
    schedule = COURSES[1].build()
    assert schedule.descent(4).tolist() == [999, 749, 499, 249, -1]
    assert schedule.levels(torch.tensor([-1.0]))[0] == 1
    leading = COURSES[1].replace(spacing="leading").build()
    assert leading.descent(4).tolist() == [750, 500, 250, 0, -1]
    with pytest.raises(ConfigError, match="at most the schedule's 1000; got 1001"):
        schedule.descent(1001)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="shift must be 1"):
        NoiseScheduleConfig(course="cosine", target="v", shift=3)
    with pytest.raises(ConfigError, match="target must be flow, v or x0"):
        NoiseScheduleConfig(target="epsilon")
