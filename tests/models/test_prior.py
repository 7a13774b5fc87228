from dataclasses import replace

import pytest
import torch

from diptych.core.errors import ConfigError, DataError
from diptych.models.painting import Painting
from diptych.nn.samplers import SamplerConfig
from diptych.objectives.diffusion import DiffusionConfig
from tests.models.small_diffusion import small_prior
from tests.models.writers import stirred, text_batch


def keys_of(count: int, seed: int = 0) -> torch.Tensor:
    return Painting(seed=seed).keys(count, torch.device("cpu"))


def test_vectors_have_the_length_of_noise_and_stand_for_their_text_alone():
    model, batch = stirred(small_prior()), text_batch((5, 2, 7))
    found = model.sample_vectors(batch.tokens, batch.lengths, keys_of(3))
    torch.testing.assert_close(found.norm(dim=1), torch.full((3,), 8**0.5))
    alone = model.sample_vectors(batch.tokens[1:2, :2], batch.lengths[1:2], keys_of(3)[1:2])
    torch.testing.assert_close(alone, found[1:2], atol=1e-4, rtol=1e-4)
    other = model.sample_vectors(batch.tokens, batch.lengths, keys_of(3, seed=1))
    assert not torch.allclose(other, found, atol=1e-2)


def test_of_several_the_nearest_to_the_text_is_kept():
    batch = text_batch((5, 2, 7))
    near = []
    for candidates in (1, 2, 8):
        model = stirred(small_prior(candidates=candidates))
        vectors = model.read(batch.tokens, batch.lengths)[2]
        near.append((model.sample_vectors(batch.tokens, batch.lengths, keys_of(3)) * vectors).sum(1))
    assert (near[1] >= near[0] - 1e-5).all()
    assert (near[2] >= near[1] - 1e-5).all()
    assert near[2].sum() > near[0].sum()


def test_hidden_padding_and_the_width_of_the_batch_change_nothing():
    model, batch = stirred(small_prior()), text_batch((5, 2, 7))
    keys = torch.arange(3)
    plain, _ = model(batch, keys)
    filled = torch.where(torch.arange(7) < batch.lengths[:, None], batch.tokens, 9)
    wider = torch.nn.functional.pad(filled, (0, 3), value=4)
    torch.testing.assert_close(model(replace(batch, tokens=wider), keys)[0], plain, atol=1e-5, rtol=1e-5)


def test_guidance_1_asks_no_second_time():
    batch = text_batch((5, 2))
    plain, far = (stirred(small_prior(guidance=g)) for g in (1.0, 3.0))
    found = [m.sample_vectors(batch.tokens, batch.lengths, keys_of(2)) for m in (plain, far)]
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_clip_rests_and_the_rest_learns():
    model, batch = small_prior().build(30).train(), text_batch((5, 2, 7, 3))
    objective = DiffusionConfig().build(model)
    objective(batch).total.backward()
    assert all(p.grad is None for p in model.clip.parameters())
    assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("clip."))


@pytest.mark.slow
def test_pairs_are_learnt_by_heart():
    """The vector drawn for a text is, of four, nearest to that of its own image."""
    torch.manual_seed(0)
    model, batch = small_prior().build(30).train(), text_batch((3, 3, 3, 3))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    many = torch.arange(4).repeat(8)
    rows = type(batch)(images=batch.images[many], tokens=batch.tokens[many], lengths=batch.lengths[many])
    for n in range(150):
        errors, _ = model(rows, torch.arange(32) + 32 * n)
        optimizer.zero_grad()
        errors.mean().backward()
        optimizer.step()
    model.eval()
    assert model.score(batch.images, batch.tokens, batch.lengths).argmax(0).tolist() == [0, 1, 2, 3]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="context_length must be that of its clip"):
        small_prior(context_length=9)
    with pytest.raises(ConfigError, match="sampler must be ddim or ddpm"):
        small_prior(sampler=SamplerConfig()).build(30)
    with pytest.raises(DataError, match="one image and one text a record"):
        stirred(small_prior())(replace(text_batch(), images=None), torch.arange(3))
