"""The discrete VAE: its likelihood, its schedules, its relaxation; numbers against dall_e are in tests/checkpoints."""

import math

import numpy as np
import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.codecs.discrete_vae import NARROWEST, logit_laplace, map_pixels, unmap_pixels
from tests.models.codecs.small import KEYS, configs, pictures, small


def test_the_likelihood_is_a_density_of_numbers_between_0_and_1():
    x = torch.linspace(1e-6, 1 - 1e-6, 200_001, dtype=torch.float64)
    for middle, log_width in ((0.3, -1.0), (-2.0, 0.0)):
        nll = logit_laplace(x, torch.full_like(x, middle), torch.full_like(x, log_width))
        assert np.trapezoid((-nll).exp().numpy(), x.numpy()) == pytest.approx(1, abs=1e-3)
    at = torch.tensor(0.4)
    b, mu = 0.5, 0.1
    plain = math.log(2 * b * 0.4 * 0.6) + abs(math.log(0.4 / 0.6) - mu) / b
    assert logit_laplace(at, torch.tensor(mu), torch.tensor(math.log(b))).item() == pytest.approx(plain, abs=1e-6)
    assert logit_laplace(at, at, torch.tensor(-50.0)) == logit_laplace(at, at, torch.tensor(NARROWEST))


def test_pixels_there_and_back():
    x = torch.linspace(0, 1, 11)
    torch.testing.assert_close(unmap_pixels(torch.logit(map_pixels(x))), x)
    assert unmap_pixels(torch.tensor([-99.0, 99.0])).tolist() == [0, 1]


def test_schedules_go_by_steps_that_were_taken():
    codec = small("discrete_vae").train()
    seen = []
    for _ in range(6):
        seen.append((round(codec.temperature().item(), 4), round(codec.health()["kl_weight"], 4)))
        codec(pictures(), KEYS)
        codec(pictures(), KEYS)  # a second piece
        codec.after_step()
        codec.after_step()  # twice is once
    c, low = codec.config, codec.config.final_temperature
    temperatures = [low + (1 - low) * (1 + math.cos(math.pi * min(n / 4, 1))) / 2 for n in range(6)]
    weights = [c.kl_weight * min(n / 4, 1) for n in range(6)]
    np.testing.assert_allclose(seen, list(zip(temperatures, weights, strict=True)), atol=1e-4)
    other = configs()["discrete_vae"].build()
    other.load_state_dict(codec.state_dict())
    assert other.temperature() == codec.temperature()


def test_the_relaxation_draws_codes_as_often_as_they_are_likely():
    codec = small("discrete_vae")
    logits = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1).expand(4000, 3, 1, 1)
    soft = codec.relaxed(logits, torch.arange(4000))
    torch.testing.assert_close(soft.sum(1), torch.ones(4000, 1, 1))
    share = torch.bincount(soft.argmax(1).flatten(), minlength=3) / 4000
    torch.testing.assert_close(share, torch.tensor([0.0, 1, 2]).softmax(0), atol=0.03, rtol=0)  # 4 standard errors
    codec.steps.fill_(4)
    assert codec.relaxed(logits, torch.arange(4000)).amax(1).mean() > soft.amax(1).mean()


def test_the_divergence_is_from_the_uniform_distribution():
    codec = small("discrete_vae").eval()
    logits = codec.logits(codec.at_side(pictures()))
    p = logits.softmax(1).double()
    plain = (p * (p * 12).log()).sum((1, 2, 3)) / (3 * 16 * 16)
    torch.testing.assert_close(codec(pictures(), KEYS).terms["kl"].value.double(), plain, atol=1e-6, rtol=1e-4)
    assert codec._divergence(torch.zeros(1, 12, 4, 4)).item() == pytest.approx(0, abs=1e-6)


def test_what_it_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="a multiple of 4"):
        configs()["discrete_vae"].replace(image_format=configs()["vqvae"].image_format.replace(resolution=18))
