"""The KL autoencoder: its divergence, its noise, its scale; numbers against diffusers are in tests/checkpoints."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.models.codecs.small import KEYS, configs, pictures, small


def test_the_divergence_is_from_the_standard_normal():
    codec = small("autoencoder_kl").eval()
    mean, logvar = codec.distribution(codec.at_side(pictures()))
    wanted = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).mean((1, 2, 3))
    term = codec(pictures(), KEYS).terms["kl"]
    torch.testing.assert_close(term.value, wanted)
    assert term.weight == 0.1


def test_the_scale_is_measured_and_goes_both_ways():
    codec = small("autoencoder_kl").train()
    assert codec.scale == 1
    noted = []
    for step in range(3):
        images = pictures(8)[step : step + 4]
        for piece in images.split(2):
            codec(piece, KEYS[:2])
        noted.append(codec.distribution(codec.at_side(images))[0].detach())
        codec.after_step()
        codec.after_step()  # twice is once
    rows = torch.stack([m.flatten() for m in noted])
    weights = torch.tensor([0.99**2, 0.99, 1.0])
    first, second = ((x.mean(1) * weights).sum() / weights.sum() for x in (rows, rows.square()))
    torch.testing.assert_close(codec.scale, (second - first**2).rsqrt(), atol=1e-4, rtol=1e-4)
    codec.eval()
    mean, _ = codec.distribution(codec.at_side(pictures()))
    torch.testing.assert_close(codec.encode(pictures()), codec.scale * mean)
    torch.testing.assert_close(codec.decode(codec.encode(pictures())), codec._pixels(mean), atol=1e-5, rtol=1e-4)


def test_a_given_scale_is_kept():
    codec = configs()["autoencoder_kl"].replace(scaling_factor=0.18215).build()
    assert codec.scale.item() == pytest.approx(0.18215)


def test_training_decodes_what_it_draws():
    codec = small("autoencoder_kl").train()
    drawn = codec(pictures(), KEYS).found
    mean = codec.eval()(pictures(), KEYS).found
    assert not torch.allclose(drawn, mean)
    still = configs()["autoencoder_kl"].replace(sample=False).build()
    still.load_state_dict(codec.state_dict())
    torch.testing.assert_close(still.train()(pictures(), KEYS).found, mean)
