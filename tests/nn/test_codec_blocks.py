"""The convolutional stacks: sides, options, mistakes; their numbers are checked against diffusers and transformers."""

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.nn.codec_blocks import ConvCodecConfig, ConvDecoder, ConvEncoder, multiscale_error


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"middle": "none", "patch": 2},
        {"middle": "blocks", "attention": (0, 1), "depth": 2},
        {"multipliers": (1,), "patch": 4},
    ],
    ids=str,
)
def test_sides_and_gradients(settings):
    config = ConvCodecConfig(**({"width": 8, "multipliers": (1, 2), "depth": 1, "groups": 4} | settings))
    encoder, decoder = ConvEncoder(config, 5), ConvDecoder(config, 5)
    images = torch.randn(2, 3, 16, 16)
    latents = encoder(images)
    assert latents.shape == (2, 5, 16 // config.stride, 16 // config.stride)
    out = decoder(latents)
    assert out.shape == images.shape
    (out * images).sum().backward()
    assert all(p.grad is not None and p.grad.any() for m in (encoder, decoder) for p in m.parameters())
    torch.testing.assert_close(encoder(images[:1]), latents[:1], atol=1e-5, rtol=1e-4)  # images do not meet


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 100}, "groups divide width"),
        ({"multipliers": ()}, "must name levels"),
        ({"attention": (5,)}, "from 0 to 4"),
    ],
)
def test_mistakes_are_answered(settings, words):
    with pytest.raises(ConfigError, match=words):
        ConvCodecConfig(**settings)


def test_the_error_at_several_sides():
    a, b = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    half = torch.nn.functional.avg_pool2d
    first, second = (a - b).abs().mean((1, 2, 3)), (half(a, 2) - half(b, 2)).abs().mean((1, 2, 3))
    torch.testing.assert_close(multiscale_error(a, b), first)
    torch.testing.assert_close(multiscale_error(a, b, 2), (first + second) / 2)
    torch.testing.assert_close(multiscale_error(a, b, 1, squared=True), (a - b).square().mean((1, 2, 3)))
