"""From noise to a picture, step by step: what a sampler does between two times of a schedule."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.config import Config
from diptych.core.errors import ConfigError
from diptych.nn.draws import normal
from diptych.nn.noise_schedule import NoiseSchedule

SamplerName = Literal["ddim", "ddpm", "euler"]
Predict = Callable[[Tensor, Tensor], Tensor]
"""The denoiser's answer to noised pictures (b ...) at times (b)."""


class SamplerConfig(Config):
    """Settings of sampling.

    name   "euler": along the velocity of a flow; "ddim": without noise of its own (Song et al. 2021, arXiv:2010.02502),
           or with `eta` of it; "ddpm": from the posterior (Ho et al. 2020, eq. 7). The last two, and eta, are of
           schedules of betas
    steps  how often the denoiser is asked
    clip   the foreseen picture is held in [-clip, clip]: 1 for pixels; 0: not held
    """

    name: SamplerName = "euler"
    steps: int = Field(default=50, gt=0)
    eta: float = Field(default=0.0, ge=0)
    clip: float = Field(default=0.0, ge=0)


@torch.no_grad()
def sample(
    predict: Predict, schedule: NoiseSchedule, keys: Int64[Tensor, " b"], shape: tuple[int, ...], how: SamplerConfig
) -> Float[Tensor, "b *s"]:
    """A picture a key, of `shape` each: its first noise and that of every step are a function of the key."""
    check_sampler(schedule, how)
    count = torch.Size(shape).numel()

    def noise(name: str) -> Tensor:
        return normal(keys, name, count).unflatten(1, shape)

    x = noise("first noise")
    times = schedule.descent(how.steps).to(x.device)
    for i in range(how.steps):
        now, then = times[i].expand(len(x)), times[i + 1].expand(len(x))
        draws = how.name == "ddpm" or how.eta > 0
        fresh = noise(f"noise of step {i}") if draws and i < how.steps - 1 else None
        x = step(schedule, x, predict(x, now).float(), now, then, how, fresh)
    return x


def step(
    schedule: NoiseSchedule,
    x: Float[Tensor, "b *s"],
    answer: Float[Tensor, "b *s"],
    now: Float[Tensor, " b"],
    then: Float[Tensor, " b"],
    how: SamplerConfig,
    noise: Float[Tensor, "b *s"] | None = None,
) -> Float[Tensor, "b *s"]:
    """From the time `now` to the cleaner `then`, given the denoiser's answer at `now`; `noise` is standard normal
    (None: none is added)."""
    x0, e = schedule.split(x, answer, now)
    if how.clip:
        x0 = x0.clamp(-how.clip, how.clip)
    alpha, sigma = (_like(z, x) for z in schedule.levels(now))
    alpha_2, sigma_2 = (_like(z, x) for z in schedule.levels(then))
    if how.name == "ddpm":
        kept = (alpha / alpha_2) ** 2  # 1 - beta of the stride
        mean = (alpha_2 * (1 - kept) * x0 + kept.sqrt() * sigma_2**2 * x) / sigma**2
        if noise is None:
            return mean
        return mean + ((1 - kept) * sigma_2**2 / sigma**2).clamp_min(1e-20).sqrt() * noise
    spread = torch.zeros_like(sigma)
    if how.eta:
        spread = how.eta * sigma_2 / sigma * (1 - (alpha / alpha_2) ** 2).clamp_min(0).sqrt()
    x = alpha_2 * x0 + (sigma_2**2 - spread**2).clamp_min(0).sqrt() * e
    return x if noise is None else x + spread * noise


def check_sampler(schedule: NoiseSchedule, how: SamplerConfig) -> None:
    """Raise a ConfigError where a sampler is not made for a schedule."""
    flows = schedule.config.course == "flow"
    if how.name == "euler" and not flows:
        raise ConfigError(
            f"sampler must be ddim or ddpm where noise follows betas (course={schedule.config.course}); got euler. "
            "With ddim nothing is drawn on the way either."
        )
    if flows and (how.name == "ddpm" or how.eta):
        raise ConfigError(
            f"sampler must be euler (or ddim without eta, which is the same) for a flow; got {how.name} with eta "
            f"{how.eta}. What they draw on the way belongs to schedules of betas."
        )


def _like(z: Tensor, x: Tensor) -> Tensor:
    """A number a row, to be multiplied with rows of any shape."""
    return z.view(-1, *[1] * (x.ndim - 1))
