from dataclasses import replace

import pytest
import torch

from diptych.core.errors import DataError
from diptych.models.connectors.linear import LinearConfig
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.sequence_writer import SequenceWriter
from tests.models.writers import small_language, small_prefix_lm, stirred, summed, text_batch

KINDS = {
    "llava": small_prefix_lm(),
    "git": small_prefix_lm(
        seen="prefix",
        connector=LinearConfig(norm=True),
        language=small_language(positions="learned", counted="text", norm_position="post", norm_embed=True),
    ),
    "frozen": small_prefix_lm(reading=ImageReadingConfig(readout="pooled"), language=small_language(kv_heads=1)),
    "early": small_prefix_lm(reading=ImageReadingConfig(layer=-2, cls=False)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_are_the_function_of_padded_ones_in_value_and_gradient(kind, monkeypatch):
    batch = text_batch((5, 2, 7, 3, 2))
    found = []
    for form in ("rows", "padded"):
        monkeypatch.setattr(SequenceWriter, "_form", lambda self, tokens, form=form: form)
        model = stirred(KINDS[kind])
        said = model.predict(batch)
        order = torch.argsort(said.record * 100, stable=True)
        (said.hidden[order] * torch.arange(len(order))[:, None]).sum().backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((said.hidden[order], said.targets[order], grads))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    assert torch.equal(found[0][1], found[1][1])
    for name, g in found[0][2].items():  # sums of thousands of terms in another order
        torch.testing.assert_close(g, found[1][2][name], atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_trainable_parameter_gets_a_gradient(kind):
    model = stirred(KINDS[kind])
    model.predict(text_batch()).hidden.square().sum().backward()
    head = {"language.lm_head.weight"}
    for name, p in model.named_parameters():
        assert name in head or p.requires_grad == (p.grad is not None), name


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_of_a_grid_are_those_of_each_pair(kind):
    model, batch = stirred(KINDS[kind]), text_batch()
    grid = model.log_likelihood(batch.images, batch.tokens, batch.lengths)
    for shift in range(3):
        turned = replace(batch, images=batch.images.roll(shift, 0))
        pairs = grid[(torch.arange(3) - shift) % 3, torch.arange(3)]
        torch.testing.assert_close(pairs, summed(model, turned), atol=1e-4, rtol=1e-5)
    assert model.text_prior(batch.tokens, batch.lengths).shape == (3,)


def test_images_may_stand_anywhere_and_be_many():
    model, batch = stirred(KINDS["llava"]), text_batch((5, 4, 7))
    pages = replace(
        batch,
        images=torch.cat([batch.images, batch.images[:1]]),
        image_record=torch.tensor([0, 0, 2, 2]),
        image_position=torch.tensor([0, 3, 2, 7]),
        image_ids=None,
        loss_mask=torch.ones(3, 7, dtype=torch.bool),
    )
    assert len(model.predict(pages).targets) == (5 + 3 + 6)  # a first token after an image is a target too
    with torch.no_grad():
        before = model.predict(pages)
        later = pages.images.clone()
        later[1] = 255 - later[1]
        after = model.predict(replace(pages, images=later))
    mine = before.record == 0
    same = torch.isclose(before.hidden[mine], after.hidden[mine]).all(1)
    assert same.tolist() == [True, True, True, False, False]  # tokens 0 to 2 stand before it


def test_a_table_of_vectors_stands_for_images():
    model, batch = stirred(KINDS["llava"]), text_batch()
    vectors = model.image_vectors(batch.images)
    assert vectors.shape == (3, model.table_width("image"))
    cached = replace(batch, images=None, cached={"image": vectors})
    torch.testing.assert_close(model.predict(cached).hidden, model.predict(batch).hidden)


def test_too_long_a_record_is_refused():
    model = stirred(small_prefix_lm(max_images=1, context_length=4))
    with pytest.raises(DataError, match="at most 9 tokens"):
        model.predict(text_batch((5,)))


def test_a_row_that_reads_nothing_more_keeps_its_last_state():
    model, batch = stirred(KINDS["llava"]), text_batch((3, 3))
    with torch.no_grad():
        state = model.begin_images(batch.images)
        model.read(state, batch.tokens)
        before = state.last
        model.read(state, batch.tokens[:, :1], torch.tensor([1, 0]))
    torch.testing.assert_close(state.last[1], before[1])
    assert not torch.allclose(state.last[0], before[0])
    assert state.text.tolist() == [4, 3]
