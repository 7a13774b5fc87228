"""Codecs against the public ones with random weights: dall_e, transformers (FLAVA, Chameleon, Janus), diffusers.

Latents, codes, reconstructions, losses and gradients. Where a public one errs, the test says so.
"""

import pytest
import torch
import torch.nn.functional as F

from diptych.checkpoints import codec_names as names
from diptych.core.image_format import ImageFormat
from diptych.models.codecs.autoencoder_kl import AutoencoderKLConfig
from diptych.models.codecs.discrete_vae import DiscreteVAEConfig, map_pixels, unmap_pixels
from diptych.models.codecs.vqvae import VQVAEConfig
from diptych.nn.codec_blocks import ConvCodecConfig
from diptych.nn.quantizer import VectorQuantizerConfig
from tests import torchvision_on_cpu
from tests.checkpoints.tiny import TOLERANCE, assert_equal_states, pixels, randomise

SIDE = 16
SEES = ImageFormat(resolution=SIDE)


@pytest.fixture(autouse=True)
def _peers():
    torchvision_on_cpu.install()


def close(a, b):
    torch.testing.assert_close(a, b, **TOLERANCE)


def taken_over(config, rules, theirs, state=None):
    """Our codec with their random weights, which come back out of it to the bit."""
    state = theirs.state_dict() if state is None else state
    codec = config.build().eval()
    names.filled(codec, rules, state)
    assert_equal_states(names.theirs_of(codec, rules), dict(state))
    return codec


def gradients_agree(codec, theirs, rules, some=4):
    """Of parameters spread over the network, after a backward pass through both."""
    own, other = dict(codec.named_parameters()), dict(theirs.named_parameters())
    pairs = [r for r in rules if r.theirs in other and other[r.theirs].grad is not None]
    assert len(pairs) > some
    for rule in pairs[:: max(1, len(pairs) // (4 * some))]:
        wanted, found = other[rule.theirs].grad, own[rule.ours[0]].grad
        scale = wanted.abs().max().clamp_min(1e-3)
        close(found.view_as(wanted) / scale, wanted / scale)


def _dall_e():
    dall_e = pytest.importorskip("dall_e")
    config = DiscreteVAEConfig(image_format=SEES, codes=512, width=64, depth=1, decoder_width=8)  # its smallest
    halves = torch.nn.ModuleDict(
        {
            "encoder": dall_e.Encoder(n_hid=64, n_blk_per_group=1, vocab_size=512),
            "decoder": dall_e.Decoder(n_hid=64, n_init=8, n_blk_per_group=1, vocab_size=512),
        }
    )
    randomise(halves.requires_grad_(True))  # not before: it draws its weights in place
    rules = names.dall_e_rules(config)
    return dall_e, halves, rules, taken_over(config, rules, halves)


def test_dall_es_encoder_decoder_and_pixels():
    dall_e, halves, _, codec = _dall_e()
    x = pixels(2, SIDE) / 255
    close(map_pixels(x), dall_e.map_pixels(x))
    logits, theirs = codec.logits(x), halves["encoder"](dall_e.map_pixels(x))
    close(logits, theirs)
    assert torch.equal(codec.codes(pixels(2, SIDE)), theirs.argmax(1).flatten(1))
    soft = theirs.softmax(1)
    found, wanted = codec.statistics(codec.from_codes(soft)), halves["decoder"](soft)
    close(found, wanted)
    close(unmap_pixels(found[:, :3]), dall_e.unmap_pixels(torch.sigmoid(wanted[:, :3].float())))
    one = F.one_hot(theirs.argmax(1), 512).movedim(3, 1).float()
    close(codec.decode(codec.encode(pixels(2, SIDE))), dall_e.unmap_pixels(halves["decoder"](one)[:, :3].sigmoid()))


def test_dall_es_gradients():
    _, halves, rules, codec = _dall_e()
    x = pixels(2, SIDE) / 255
    codec.statistics(codec.from_codes(codec.logits(x).softmax(1))).square().mean().backward()
    halves["decoder"](halves["encoder"](map_pixels(x)).softmax(1)).square().mean().backward()
    gradients_agree(codec, halves, rules)


def test_flavas_image_codebook():
    from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

    config = DiscreteVAEConfig(image_format=SEES, codes=40, width=8, depth=2, decoder_width=8)
    public = FlavaImageCodebook(
        FlavaImageCodebookConfig(hidden_size=8, num_blocks_per_group=2, vocab_size=40, freeze=False)
    ).eval()
    randomise(public)
    rules = names.flava_codebook_rules(config)
    codec, x = taken_over(config, rules, public), pixels(2, SIDE)
    found, wanted = codec.logits(x / 255), public(map_pixels(x / 255))
    close(found, wanted)
    assert torch.equal(codec.codes(x), public.get_codebook_indices(map_pixels(x / 255)).flatten(1))
    found.square().mean().backward()
    wanted.square().mean().backward()
    gradients_agree(codec, public, rules)


def _taming(attention, distance="l2", legacy=True):
    convs = ConvCodecConfig(width=32, multipliers=(1, 2), depth=1, attention=attention)
    book = VectorQuantizerConfig(codes=20, width=6, legacy_beta=legacy, distance=distance)
    return VQVAEConfig(image_format=SEES, convs=convs, latent_channels=8, quantizer=book)


def test_chameleons_encoder_and_codebook_with_beta_on_the_other_term():
    from transformers import ChameleonVQVAE, ChameleonVQVAEConfig

    config = _taming((1,))
    public = ChameleonVQVAE(
        ChameleonVQVAEConfig(
            embed_dim=6,
            num_embeddings=20,
            latent_channels=8,
            resolution=SIDE,
            base_channels=32,
            channel_multiplier=[1, 2],
            num_res_blocks=1,
            attn_resolutions=[8],
        )
    ).eval()
    randomise(public)
    rules = names.vqvae_rules(config, names.TAMING, decodes=False)
    codec, x = taken_over(config, rules, public), pixels(2, SIDE)
    vectors = codec._vectors(x / 255)
    hidden = public.quant_conv(public.encoder(2 * (x / 255) - 1))
    close(vectors, hidden.flatten(2).transpose(1, 2))
    found, (quantised, loss, codes) = codec.quantizer(vectors), public.quantize(hidden)
    assert torch.equal(codec.codes(x), codes.view(2, -1))
    close(found.vectors, quantised.flatten(2).transpose(1, 2))
    close(found.loss.mean(), loss)
    right = _taming((1,), legacy=False).build().eval()
    right.load_state_dict(codec.state_dict())
    e, z = right.quantizer.vectors(found.codes), vectors
    close(right.quantizer(z).loss.mean(), F.mse_loss(e, z) * 1.25)
    assert not torch.allclose(right.quantizer(z).loss.mean(), 0.9 * loss)
    (found.loss.mean() + found.vectors.square().mean()).backward()
    (loss + quantised.square().mean()).backward()
    gradients_agree(codec, public, rules)


def test_januss_codes_and_pixels_whose_codes_are_of_unit_length():
    """Its encoder compares with the codebook as it is, its decoder with codes of unit length: they agree, and are our
    "cosine", only where the codebook is of unit length."""
    from transformers.models.janus.configuration_janus import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAE

    config = _taming((1,), distance="cosine")
    public = JanusVQVAE(
        JanusVQVAEConfig(
            embed_dim=6,
            num_embeddings=20,
            latent_channels=8,
            base_channels=32,
            channel_multiplier=[1, 2],
            num_res_blocks=1,
            num_patches=8,
        )
    ).eval()
    randomise(public)
    with torch.no_grad():
        public.quantize.embedding.weight.copy_(F.normalize(public.quantize.embedding.weight, dim=1))
    rules = names.vqvae_rules(config, names.TAMING)
    codec, x = taken_over(config, rules, public), pixels(2, SIDE)
    codes = public.encode(2 * (x / 255) - 1).image_tokens.view(2, -1)
    assert torch.equal(codec.codes(x), codes)
    found, wanted = codec.decode(codec.latents_of(codes)), (public.decode(codes) + 1) / 2
    close(found, wanted)
    found.square().mean().backward()
    wanted.square().mean().backward()
    gradients_agree(codec, public, [r for r in rules if "decoder" in r.theirs])
    with torch.no_grad():
        public.quantize.embedding.weight[0] *= 100
    assert not torch.equal(public.encode(2 * (x / 255) - 1).image_tokens.view(2, -1), codes)
    close(public.decode(codes), 2 * wanted.detach() - 1)  # the decoder has not noticed


def test_diffusers_vq_model():
    from diffusers import VQModel

    convs = ConvCodecConfig(width=8, multipliers=(1, 2), depth=1, groups=4)
    book = VectorQuantizerConfig(codes=20, width=6, legacy_beta=True)
    config = VQVAEConfig(image_format=SEES, convs=convs, latent_channels=5, quantizer=book)
    public = VQModel(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=5,
        num_vq_embeddings=20,
        vq_embed_dim=6,
        norm_num_groups=4,
    ).eval()
    randomise(public)
    rules = names.vqvae_rules(config, names.DIFFUSERS)
    codec, x = taken_over(config, rules, public), pixels(2, SIDE)
    out = codec(x, torch.arange(2))
    wanted = public(2 * (x / 255) - 1)
    close(out.found, (wanted.sample + 1) / 2)
    close(out.terms["codebook"].value.mean(), wanted.commit_loss)
    codes = public.quantize(public.encode(2 * (x / 255) - 1).latents)[2][2]
    assert torch.equal(codec.codes(x), codes.view(2, -1))
    (out.found.square().mean() + out.terms["codebook"].value.mean()).backward()
    (((wanted.sample + 1) / 2).square().mean() + wanted.commit_loss).backward()
    gradients_agree(codec, public, rules)


def test_diffusers_autoencoder_kl():
    from diffusers import AutoencoderKL

    convs = ConvCodecConfig(width=8, multipliers=(1, 2), depth=2, groups=4)
    config = AutoencoderKLConfig(image_format=SEES, convs=convs, latent_channels=4, scaling_factor=0.18215)
    public = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=2,
        norm_num_groups=4,
    ).eval()
    randomise(public)
    rules = names.autoencoder_kl_rules(config)
    codec, x = taken_over(config, rules, public), pixels(2, SIDE)
    given = public.encode(2 * (x / 255) - 1).latent_dist
    mean, logvar = codec.distribution(x / 255)
    close(mean, given.mean)
    close(logvar, given.logvar)
    close(codec.encode(x), given.mean * public.config.scaling_factor)
    out = codec(x, torch.arange(2))
    close(out.terms["kl"].value, given.kl() / mean[0].numel())  # theirs sums what ours averages
    wanted = (public.decode(given.mean).sample + 1) / 2
    close(out.found, wanted)
    close(codec.decode(codec.encode(x)), wanted)
    (out.found.square().mean() + out.terms["kl"].value.mean()).backward()
    (wanted.square().mean() + (given.kl() / mean[0].numel()).mean()).backward()
    gradients_agree(codec, public, rules)
