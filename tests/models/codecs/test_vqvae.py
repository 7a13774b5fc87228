"""VQ-VAE: what the contract of codecs does not say of it."""

import pytest
import torch

from diptych.core.errors import ConfigError
from tests.models.codecs.small import KEYS, configs, pictures, small


def test_the_decoder_sees_codes_and_the_encoder_is_taught_through_them():
    codec = small("vqvae").train()
    out = codec(pictures(), KEYS)
    torch.testing.assert_close(out.found, codec.decode(codec.encode(pictures())), atol=1e-5, rtol=1e-4)
    out.found.sum().backward()
    assert codec.encoder.conv_in.weight.grad.any()
    assert codec.quantizer.codebook.grad is None or not codec.quantizer.codebook.grad.any()


def test_only_a_codebook_that_learns_by_gradient_is_a_parameter_and_is_not_decayed():
    assert small("vqvae").decay_free() == {"quantizer.codebook"}
    assert small("vqvae_ema").decay_free() == set()
    assert "quantizer.codebook" in small("vqvae_ema").state_dict()


def test_a_side_that_the_convolutions_do_not_divide_is_refused():
    config = configs()["vqvae"]
    with pytest.raises(ConfigError, match="a multiple of 4"):
        config.replace(image_format=config.image_format.replace(resolution=18))
