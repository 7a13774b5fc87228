"""Diffusion by plain loops over samples, with betas multiplied one by one."""

import math

import torch
from torch import Tensor

from diptych.nn.noise_schedule import NoiseScheduleConfig


def betas(c: NoiseScheduleConfig) -> list[float]:
    """beta of each time."""
    n, found = c.steps, []
    for i in range(n):
        share = i / (n - 1)
        if c.course == "linear":
            found.append(c.beta_start + share * (c.beta_end - c.beta_start))
        elif c.course == "scaled_linear":
            found.append((c.beta_start**0.5 + share * (c.beta_end**0.5 - c.beta_start**0.5)) ** 2)
        else:
            bar = [math.cos((j / n + 0.008) / 1.008 * math.pi / 2) ** 2 for j in (i, i + 1)]
            found.append(min(1 - bar[1] / bar[0], 0.999))
    return found


def levels(c: NoiseScheduleConfig, time: float) -> tuple[float, float]:
    """(alpha, sigma)."""
    if c.course == "flow":
        return 1 - time / c.steps, time / c.steps
    kept = 1.0
    for beta in betas(c)[: int(time) + 1]:
        kept *= 1 - beta
    return kept**0.5, (1 - kept) ** 0.5


def target(c: NoiseScheduleConfig, x0: Tensor, noise: Tensor, time: float) -> Tensor:
    """What is foreseen of one sample."""
    alpha, sigma = levels(c, time)
    return {
        "epsilon": noise,
        "x0": x0,
        "v": alpha * noise - sigma * x0,
        "flow": noise - x0,
    }[c.target]


def loss(model, latents: Tensor, noise: Tensor, times: Tensor, texts: list[list[int] | None]) -> Tensor:
    """Mean over samples of the mean squared error, each sample denoised alone and without padding; a text that is None
    is the learned nothing."""
    total = torch.zeros(())
    c = model.config.schedule
    for x0, e, time, ids in zip(latents, noise, times.tolist(), texts, strict=True):
        alpha, sigma = levels(c, time)
        x = (alpha * x0 + sigma * e)[None]
        if ids is None:
            told = model.nothing(1)
        else:
            told = model.condition(torch.tensor([ids]), torch.tensor([len(ids)]))
        answer = model.denoiser(x, torch.tensor([time]), told)[0]
        total = total + ((answer - target(c, x0, e, time)) ** 2).mean()
    return total / len(latents)
