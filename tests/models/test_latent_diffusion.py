from dataclasses import replace

import pytest
import torch

from diptych.core.errors import ConfigError, DataError
from diptych.models.capabilities import capabilities_of
from diptych.models.painting import Painting
from diptych.nn.denoiser import Condition
from diptych.nn.diffusion_transformer import DiffusionTransformerConfig
from diptych.nn.noise_schedule import NoiseScheduleConfig
from diptych.nn.samplers import SamplerConfig
from diptych.nn.unet import UNetConfig
from tests.models.small_diffusion import small_codec, small_diffusion
from tests.models.writers import stirred, text_batch

KINDS = {
    "pixels": {},
    "latents": {"codec": small_codec(), "latent_scale": 0.5},
    "tokens alone": {"pooled": False, "denoiser": DiffusionTransformerConfig(
        width=16, depth=2, heads=2, patch_size=4, modulation="single", qk_norm=True)},
    "betas": {"schedule": NoiseScheduleConfig(course="cosine", target="v", drawn="uniform"),
              "sampler": SamplerConfig(name="ddim")},
    "unet": {"denoiser": UNetConfig(widths=(8, 16), attends=(False, True), heads=2, groups=4)},
}  # fmt: skip


def model_of(kind: str):
    return stirred(small_diffusion(**KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_it_paints_scores_and_knows_images_without_texts(kind):
    model, batch = model_of(kind), text_batch()
    assert set(capabilities_of(model)) == {"score", "generate_image", "image_prior"}
    painted = model.generate_image(batch.tokens, batch.lengths, Painting(steps=3))
    assert painted.shape == (3, 3, 16, 16)
    scores = model.score(batch.images, batch.tokens, batch.lengths)
    assert scores.shape == (3, 3)
    assert (scores < 0).all()
    assert model.image_prior(batch.images).shape == (3,)
    features = model.image_features(batch.images)
    assert features.shape == (3, 64 if kind == "unet" else 4 if kind == "latents" else 16, 16)
    torch.testing.assert_close(model.image_features(batch.images[1:2]), features[1:2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_beside_a_text_or_image_changes_nothing(kind):
    model, batch = model_of(kind), text_batch((5, 2, 7))
    how = Painting(steps=4, seed=3, guidance=2.0)
    whole = model.generate_image(batch.tokens, batch.lengths, how).int()
    alone = model.generate_image(batch.tokens[1:2, :2], batch.lengths[1:2], how.replace(first=1)).int()
    assert (whole[1:2] - alone).abs().max() <= 1  # sums in another order, then rounded
    again = model.generate_image(batch.tokens, batch.lengths, how).int()
    assert torch.equal(whole, again)
    assert not torch.equal(whole, model.generate_image(batch.tokens, batch.lengths, how.replace(seed=4)).int())
    scores = model.score(batch.images, batch.tokens, batch.lengths)
    one = model.score(batch.images[2:], batch.tokens[1:2, :2], batch.lengths[1:2])
    torch.testing.assert_close(one, scores[2:, 1:2], atol=1e-5, rtol=1e-5)


def test_guidance_1_is_none_and_0_is_blind():
    model, batch = model_of("pixels"), text_batch()
    how = Painting(steps=3, guidance=1.0)
    told = model.condition(batch.tokens, batch.lengths)
    model.nothing = lambda count: pytest.fail("the text alone is asked for")
    plain = model.paint(told, how)
    del model.nothing
    assert torch.equal(plain, model.generate_image(batch.tokens, batch.lengths, how))
    blind = model.paint(told, how.replace(guidance=0.0))
    assert torch.equal(blind, model.paint(model.nothing(3), how))
    assert not torch.equal(plain, model.paint(told, how.replace(guidance=3.0)))


def test_a_dropped_text_is_the_learned_nothing():
    model, batch = model_of("pixels"), text_batch()
    dropped = torch.tensor([True, False, True])
    told = model.condition(batch.tokens, batch.lengths, dropped)
    nothing, whole = model.nothing(3), model.condition(batch.tokens, batch.lengths)
    x, times = torch.randn(3, 3, 16, 16), torch.tensor([100.0, 500.0, 900.0])
    answers = [model.denoiser(x, times, c) for c in (told, nothing, whole)]
    torch.testing.assert_close(answers[0][dropped], answers[1][dropped])
    torch.testing.assert_close(answers[0][~dropped], answers[2][~dropped])
    other = model.condition(batch.tokens.flip(1), batch.lengths, dropped)
    assert torch.equal(other.tokens[dropped], told.tokens[dropped])


def test_no_text_at_all_is_seen_as_such():
    model, batch = model_of("pixels"), text_batch()
    told = model.condition(batch.tokens, torch.tensor([5, 0, 7]))
    x = torch.randn(3, 3, 16, 16)
    found = model.denoiser(x, torch.full((3,), 400.0), told)
    assert found.isfinite().all()


def test_a_paired_score_has_less_variance_than_an_unpaired_one():
    """The difference of two texts' errors, over draws of time and noise: shared by both, or drawn for each."""
    model, batch = model_of("pixels"), text_batch()
    x0 = model.latents(batch.images[:1]).expand(64, -1, -1, -1)
    told = [Condition(*(None if c is None else c.expand(64, *[-1] * (c.ndim - 1)) for c in model.condition(
        batch.tokens[i : i + 1], batch.lengths[i : i + 1]))) for i in (0, 1)]  # fmt: skip
    g = torch.Generator().manual_seed(1)
    noise = [torch.randn(x0.shape, generator=g) for _ in range(2)]
    times = [torch.rand(64, generator=g) * 1000 for _ in range(2)]
    with torch.no_grad():
        first = model.errors(x0, noise[0], times[0], told[0])
        paired = first - model.errors(x0, noise[0], times[0], told[1])
        unpaired = first - model.errors(x0, noise[1], times[1], told[1])
    assert paired.var() < unpaired.var() / 10


def test_score_is_the_error_of_each_pair_alone():
    model, batch = model_of("pixels"), text_batch()
    scores = model.score(batch.images, batch.tokens, batch.lengths)
    x0, told = model.latents(batch.images), model.condition(batch.tokens, batch.lengths)
    total = 0.0
    for draw in range(3):
        time = model.schedule.times_at(torch.tensor([(draw + 0.5) / 3]))
        noise = model._noise(f"draw {draw}", x0)[:1]
        with torch.no_grad():
            total -= float(model.errors(x0[2:], noise, time, told.take(torch.tensor([1]))))
    assert float(scores[2, 1]) == pytest.approx(total / 3, rel=1e-4)


def test_latents_are_scaled_by_what_the_second_batch_spreads():
    model = small_diffusion(codec=small_codec()).build(30).train()
    keys, batch = torch.arange(3), text_batch()
    assert float(model.latent_scale) == 1
    model(batch, keys)
    model.after_step()
    assert not model.scale_is_known
    for piece in (batch.slice(0, 1), batch.slice(1, 3)):
        model(piece, keys[: len(piece.tokens)])
    model.after_step()
    model.after_step()
    spread = model.codec.encode(batch.images).std(unbiased=False)
    assert float(model.latent_scale) == pytest.approx(1 / float(spread), rel=1e-5)
    other = small_diffusion(codec=small_codec()).build(30).train()
    other.load_state_dict(model.state_dict())
    for _ in range(3):
        other(text_batch(seed=9), keys)
        other.after_step()
    assert other.latent_scale == model.latent_scale
    assert model.latents(batch.images).std(unbiased=False) == pytest.approx(1, rel=1e-5)


def test_there_and_back():
    for kind in ("pixels", "latents"):
        model = model_of(kind)
        flat = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8).repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert (model.pixels(model.latents(flat)).int() - flat.int()).abs().max() <= 1


def test_the_codec_gets_no_gradient():
    model, batch = model_of("latents"), text_batch()
    errors, _ = model.train()(batch, torch.arange(3))
    errors.sum().backward()
    assert model.codec.gain.grad is None
    assert not model.codec.gain.requires_grad


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="must be the codec's"):
        small_diffusion(codec=small_codec(32))
    with pytest.raises(ConfigError, match="sampler must be ddim"):
        small_diffusion(schedule=NoiseScheduleConfig(course="linear")).build(30)
    with pytest.raises(ConfigError, match="must be a multiple of patch_size"):
        small_diffusion(denoiser=DiffusionTransformerConfig(width=16, heads=2, patch_size=3)).build(30)
    model, batch = model_of("pixels"), text_batch()
    with pytest.raises(DataError, match="one image and one text a record"):
        model(replace(batch, images=None), torch.arange(3))
    with pytest.raises(ConfigError, match="sampler must be euler"):
        model.generate_image(batch.tokens, batch.lengths, Painting(sampler="ddpm"))
