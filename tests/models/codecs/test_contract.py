"""What every codec promises, whatever it is made of."""

import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.models.capabilities import capabilities_of
from diptych.models.codecs.codec import CodeBook, ImageDecoder, ImageTokenizer
from tests.models.codecs.small import KEYS, configs, pictures, small

NAMES = sorted(configs())


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


def test_the_config_reads_back_equal_and_weights_are_restored_to_the_bit(name):
    config, codec = configs()[name], small(name)
    assert from_json(to_json(config)) == config
    other = config.build()
    other.load_state_dict(codec.state_dict())
    found = other.eval()(pictures(), KEYS).terms
    for n, term in codec.eval()(pictures(), KEYS).terms.items():
        assert torch.equal(term.value, found[n].value)
    free = dict(codec.named_parameters())
    assert codec.decay_free() <= free.keys()


def test_terms_and_pixels_are_of_each_image_alone(name):
    codec = small(name).train()
    whole, one = codec(pictures(), KEYS), codec(pictures()[2:3], KEYS[2:3])
    for term, alone in zip(whole.terms.values(), one.terms.values(), strict=True):
        assert term.value.shape == (4,)
        torch.testing.assert_close(term.value[2:3], alone.value, atol=1e-5, rtol=1e-4)
    assert (whole.found is None) == (name == "vq_kd")
    if whole.found is not None:
        assert whole.found.shape == whole.wanted.shape == (4, 3, 16, 16)
        assert whole.found.dtype == torch.float32
        torch.testing.assert_close(whole.found[2:3], one.found, atol=1e-5, rtol=1e-4)
        assert torch.equal(whole.wanted, pictures() / 255)


def test_draws_are_of_the_keys(name):
    codec = small(name).train()
    first, again, other = (codec(pictures(), k) for k in (KEYS, KEYS, KEYS + 1))
    draws = name in ("discrete_vae", "discrete_vae_l2", "autoencoder_kl")
    if first.found is not None:
        assert torch.equal(first.found, again.found)
        assert torch.equal(first.found, other.found) != draws


def test_codes_are_in_range_and_alike_in_any_batch_and_at_any_side(name):
    codec = small(name).eval()
    if not isinstance(codec, ImageTokenizer):
        return
    codes = codec.codes(pictures())
    assert codes.shape == (4, codec.grid[0] * codec.grid[1])
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < codec.codebook_size
    assert codes.unique().numel() > 1
    assert torch.equal(codec.codes(pictures()[1:2]), codes[1:2])
    assert codec.codes(pictures(side=32)).shape == codes.shape
    assert {"codebook_use", "perplexity"} <= codec.health().keys()


def test_there_and_back(name):
    codec = small(name).eval()
    assert ("reconstruct" in capabilities_of(codec)) == isinstance(codec, ImageDecoder)
    if not isinstance(codec, ImageDecoder):
        return
    with torch.no_grad():
        latents = codec.encode(pictures())
        assert latents.shape == (4, codec.latent_channels, *codec.grid)
        assert codec.reconstruct(pictures()).dtype == torch.uint8
        assert torch.equal(codec.pixels(latents), codec.reconstruct(pictures()))
        if isinstance(codec, CodeBook):
            codes = codec.codes(pictures())
            torch.testing.assert_close(codec.latents_of(codes), latents)
            assert torch.equal(codec.paint(codes), codec.reconstruct(pictures()))
        found = codec(pictures(), KEYS).found
        torch.testing.assert_close(found, codec.decode(latents), atol=1e-5, rtol=1e-4)


def test_autocast_changes_little(name):
    codec = small(name).eval()
    plain = codec(pictures(), KEYS)
    with torch.autocast("cpu", torch.bfloat16):
        half = codec(pictures(), KEYS)
    assert all(t.value.dtype == torch.float32 and t.value.isfinite().all() for t in half.terms.values())
    if plain.found is not None:
        assert half.found.dtype == torch.float32
        assert (half.found - plain.found).abs().mean() < 0.05
