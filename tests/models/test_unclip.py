import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.core.image_format import ImageFormat
from diptych.models.capabilities import capabilities_of
from diptych.models.painting import Painting
from diptych.objectives.diffusion import DiffusionConfig
from tests.models.small_diffusion import small_unclip
from tests.models.writers import stirred, text_batch

HOW = Painting(steps=3, guidance=2.0)


def test_it_paints_by_way_of_a_vector():
    model, batch = stirred(small_unclip()), text_batch((5, 2, 7))
    assert set(capabilities_of(model)) == {"score", "generate_image", "image_prior"}
    painted = model.generate_image(batch.tokens, batch.lengths, HOW).int()
    keys = HOW.keys(3, torch.device("cpu"))
    vectors = model.prior.sample_vectors(batch.tokens, batch.lengths, keys)
    told = model.with_image(model.condition(batch.tokens, batch.lengths), vectors)
    assert torch.equal(model.paint(told, HOW).int(), painted)
    alone = model.generate_image(batch.tokens[1:2, :2], batch.lengths[1:2], HOW.replace(first=1)).int()
    assert (alone - painted[1:2]).abs().max() <= 1
    assert model.score(batch.images, batch.tokens, batch.lengths).shape == (3, 3)


def test_an_image_can_be_varied():
    model, batch = stirred(small_unclip()), text_batch()
    found = model.vary(batch.images, HOW)
    assert found.shape == batch.images.shape
    assert not torch.equal(found, model.vary(batch.images.flip(0), HOW))


def test_the_image_s_tokens_come_first_and_count():
    model, batch = stirred(small_unclip()), text_batch((5, 2, 7))
    text = model.condition(batch.tokens, batch.lengths)
    told = model.with_image(text, torch.randn(3, 8))
    assert torch.equal(told.tokens[:, 2:], text.tokens)
    assert told.lengths.tolist() == [7, 4, 9]
    assert not torch.equal(told.vector, text.vector)
    assert model.nothing(2).tokens.shape == (2, 3, 16)


def test_texts_and_vectors_are_dropped_each_by_itself():
    model, batch = stirred(small_unclip(vector_dropout=0.5)), text_batch((3,) * 64)
    told = model.told(batch, torch.arange(64))
    nothing = model.nothing(1)
    no_image = (told.tokens[:, 0] - nothing.tokens[0, 0]).abs().amax(1) < 1e-6
    no_text = told.lengths == 3  # two of the image, one of nothing
    for first in (True, False):
        for second in (True, False):
            assert ((no_image == first) & (no_text == second)).sum() >= 4


def test_what_is_painted_may_be_smaller_than_what_clip_sees():
    model, batch = stirred(small_unclip(painted_side=8)), text_batch((5, 2, 7))
    assert model.latents(batch.images).shape == (3, 3, 8, 8)
    assert model.generate_image(batch.tokens, batch.lengths, HOW).shape == (3, 3, 8, 8)
    assert model.image_prior(batch.images).shape == (3,)


def test_what_clip_does_not_see_is_refused():
    with pytest.raises(ConfigError, match="must be that of its prior"):
        small_unclip(image_format=ImageFormat(resolution=8))


def test_only_the_decoder_learns():
    model, batch = small_unclip().build(30).train(), text_batch((5, 2, 7))
    DiffusionConfig().build(model)(batch).total.backward()
    assert all(p.grad is None for p in model.prior.parameters())
    assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("prior."))
