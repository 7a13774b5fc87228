import numpy as np
import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.nn.noise_schedule import NoiseScheduleConfig
from diptych.nn.samplers import SamplerConfig, check_sampler, sample, step

LINEAR = NoiseScheduleConfig(course="linear", target="epsilon")
KEYS = torch.tensor([11, 12, 13])


def walk(schedule, how: SamplerConfig, x: torch.Tensor, answers: list[torch.Tensor], noises: list) -> list:
    """The picture after each step, given the denoiser's answers."""
    times, found = schedule.descent(how.steps), []
    for i, (answer, noise) in enumerate(zip(answers, noises, strict=True)):
        x = step(schedule, x, answer, times[i].expand(len(x)), times[i + 1].expand(len(x)), how, noise)
        found.append(x)
    return found


def drawn(steps: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    g = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, 4, 4, generator=g), [torch.randn(2, 3, 4, 4, generator=g) for _ in range(steps)]


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("target", ["epsilon", "v", "x0"])
@pytest.mark.parametrize(("eta", "clip"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_ddim_is_that_of_diffusers_step_by_step(spacing, target, eta, clip):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        beta_schedule="linear", clip_sample=clip > 0, clip_sample_range=clip or 1.0, timestep_spacing=spacing,
        prediction_type={"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}[target],
    )  # fmt: skip
    theirs.set_timesteps(10)
    schedule = LINEAR.replace(spacing=spacing, target=target).build()
    assert schedule.descent(10)[:-1].tolist() == theirs.timesteps.tolist()
    x, answers = drawn(10)
    noises = [torch.randn(2, 3, 4, 4) for _ in range(10)] if eta else [None] * 10
    found = walk(schedule, SamplerConfig(name="ddim", steps=10, eta=eta, clip=clip), x, answers, noises)
    for t, answer, noise, mine in zip(theirs.timesteps, answers, noises, found, strict=True):
        x = theirs.step(answer, t, x, eta=eta, variance_noise=noise).prev_sample
        scale = float(x.abs().max())  # x0 is divided by a small alpha
        torch.testing.assert_close(mine, x, atol=2e-5 * max(scale, 1), rtol=1e-3)


@pytest.mark.parametrize("steps", [10, 1000])
def test_ddpm_is_that_of_diffusers_step_by_step(steps, monkeypatch):
    diffusers = pytest.importorskip("diffusers")
    from diffusers.schedulers import scheduling_ddpm

    theirs = diffusers.DDPMScheduler(beta_schedule="linear", clip_sample=True)
    theirs.set_timesteps(steps)
    schedule = LINEAR.replace(spacing="leading").build()
    x, answers = drawn(10)
    noises = [torch.randn(2, 3, 4, 4) for _ in range(10)]
    noises[-1] = noises[-1] if steps == 1000 else None
    calls = iter(noises)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, **k: next(calls))
    found = walk(schedule, SamplerConfig(name="ddpm", steps=steps, clip=1), x, answers, noises)
    for mine, t, answer in zip(found, theirs.timesteps[:10], answers, strict=True):
        x = theirs.step(answer, int(t), x).prev_sample
        torch.testing.assert_close(mine, x, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_is_that_of_diffusers_step_by_step(shift):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8))  # as the pipelines of flow models do
    schedule = NoiseScheduleConfig(shift=shift).build()
    torch.testing.assert_close(schedule.descent(8)[:-1], theirs.timesteps)
    x, answers = drawn(8)
    for mine, t, answer in zip(
        walk(schedule, SamplerConfig(steps=8), x, answers, [None] * 8), theirs.timesteps, answers, strict=True
    ):
        x = theirs.step(answer, t, x).prev_sample
        torch.testing.assert_close(mine, x, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "how"),
    [
        (NoiseScheduleConfig(), SamplerConfig(steps=7)),
        (LINEAR, SamplerConfig(name="ddim", steps=7)),
        (NoiseScheduleConfig(course="cosine", target="v"), SamplerConfig(name="ddpm", steps=40)),
    ],
)
def test_who_knows_the_picture_arrives_there(config, how):
    schedule = config.build()
    picture = torch.rand(3, 2, 4, 4) * 2 - 1

    def knows(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (z.view(-1, 1, 1, 1) for z in schedule.levels(times))
        return schedule.target(picture, (x - alpha * picture) / sigma, times)

    found = sample(knows, schedule, KEYS, (2, 4, 4), how)
    torch.testing.assert_close(found, picture, atol=2e-3, rtol=1e-3)


def test_a_sample_is_a_function_of_its_key():
    schedule, how = LINEAR.build(), SamplerConfig(name="ddpm", steps=5)

    def predict(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return 0.3 * x

    whole = sample(predict, schedule, KEYS, (3, 4, 4), how)
    torch.testing.assert_close(sample(predict, schedule, KEYS[1:2], (3, 4, 4), how), whole[1:2])
    assert not torch.equal(whole[0], whole[1])


def test_samplers_that_do_not_fit_are_refused():
    for config, how, words in (
        (LINEAR, SamplerConfig(), "must be ddim or ddpm"),
        (NoiseScheduleConfig(), SamplerConfig(name="ddpm"), "must be euler"),
        (NoiseScheduleConfig(), SamplerConfig(name="ddim", eta=0.5), "must be euler"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_sampler(config.build(), how)
