from dataclasses import replace

import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, DataError
from diptych.core.image_format import ImageFormat
from diptych.models.captioner import CaptionerConfig
from diptych.models.connectors.linear import LinearConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.generate import Generation
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from tests.models.writers import greedy_again, small_language, stirred, summed, text_batch


def small_captioner(**changes) -> CaptionerConfig:
    plain = {
        "image_format": ImageFormat(resolution=16),
        "context_length": 12,
        "embed_dim": 8,
        "image": VisionTransformerConfig(width=24, depth=1, heads=2, patch_size=8),
        "language": small_language(cross_attention="plain"),
    }
    return CaptionerConfig(**plain | changes)


KINDS = {
    "plain": small_captioner(),
    "learned": small_captioner(language=small_language(cross_attention="plain", positions="learned", qk_norm=True)),
    "convnet": small_captioner(image=ConvNetConfig(widths=(8, 16), depths=(0, 1), pool_norm="batch")),
    "connector": small_captioner(connector=LinearConfig(norm=True)),
    "pooled": small_captioner(reading=ImageReadingConfig(readout="pooled")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_trainable_parameter_gets_a_gradient_and_settings_survive(kind):
    assert from_json(to_json(KINDS[kind])) == KINDS[kind]
    model = stirred(KINDS[kind])
    (model.logits(model.predict(text_batch()).hidden).log_softmax(-1)[:, 3]).sum().backward()
    for name, p in model.named_parameters():
        assert p.requires_grad == (p.grad is not None), name
    assert model.decay_free() <= dict(model.named_parameters()).keys()


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_of_a_grid_are_those_of_each_pair(kind):
    model, batch = stirred(KINDS[kind]), text_batch()
    grid = model.score(batch.images, batch.tokens, batch.lengths)
    for shift in range(3):
        turned = replace(batch, images=batch.images.roll(shift, 0))
        pairs = grid[(torch.arange(3) - shift) % 3, torch.arange(3)]
        # keys of the image from a cache, rows by their own: sums in another order
        torch.testing.assert_close(pairs, summed(model, turned), atol=1e-4, rtol=1e-5)
    assert model.text_prior(batch.tokens, batch.lengths).shape == (3,)


def test_the_image_is_read_once_for_all_texts(monkeypatch):
    model, batch = stirred(KINDS["plain"]), text_batch((5, 2, 7, 3))
    projected: list[int] = []
    for block in model.language.blocks:
        block.cross_attention.k_proj.register_forward_hook(lambda m, i, o: projected.append(len(i[0])))
    model.log_likelihood(batch.images[:2], batch.tokens, batch.lengths)
    assert projected == [2, 2]  # two images in each of two layers, for eight rows of text


@pytest.mark.parametrize("kind", ["plain", "learned"])
def test_reading_bit_by_bit_is_the_whole_forward(kind):
    model, batch = stirred(KINDS[kind]), text_batch((6, 3, 4))
    features = model.image_features(batch.images)
    prompt = Batch(tokens=batch.tokens[:, :2], lengths=torch.tensor([2, 1, 2]), image_record=torch.arange(3))
    with torch.no_grad():
        whole = model.predict(batch)
        state = model.begin(features, prompt)
        rest = torch.stack([row[n : n + 4] for row, n in zip(batch.tokens, (2, 1, 2), strict=True)])
        found = model.read(state, rest, torch.tensor([4, 2, 2]))
    for i, (start, stop) in enumerate(((2, 5), (1, 2), (2, 3))):
        mine = whole.hidden[whole.record == i]
        torch.testing.assert_close(found[i, : stop - start], mine[start:stop], atol=1e-5, rtol=1e-5)
    assert state.text.tolist() == [6, 3, 4]


def test_it_writes_what_the_whole_forward_finds_likeliest():
    model, batch = stirred(KINDS["plain"]), text_batch()
    how = Generation(start_id=2, end_id=1, max_tokens=5)
    written = model.generate_text(batch.images, None, how)
    assert written == [greedy_again(model, image, [2], 1, 5) for image in batch.images]


def test_what_stands_later_and_other_images_do_not_matter():
    model, batch = stirred(KINDS["plain"]), text_batch((6, 6, 6))
    before = model.predict(batch)
    later = replace(batch, images=batch.images.flip(0), tokens=torch.cat([batch.tokens[:, :4], batch.tokens[:, :2]], 1))
    after = model.predict(later)
    same = torch.isclose(before.hidden, after.hidden, atol=1e-6).all(1)
    assert same.view(3, 5)[1].tolist() == [True, True, True, True, False]  # the middle record keeps its image
    assert not same.view(3, 5)[0].any()


def test_a_table_of_vectors_stands_for_images():
    model, batch = stirred(KINDS["connector"]), text_batch()
    vectors = model.image_vectors(batch.images)
    assert vectors.shape == (3, model.table_width("image"))
    cached = replace(batch, images=None, cached={"image": vectors})
    torch.testing.assert_close(model.predict(cached).hidden, model.predict(batch).hidden)


def test_what_it_cannot_read_is_refused():
    with pytest.raises(ConfigError, match="cross_attention must be 'plain'"):
        small_captioner(language=small_language())
    model, batch = stirred(small_captioner(context_length=4)), text_batch((5, 2))
    with pytest.raises(DataError, match="at most 4 tokens"):
        model.predict(batch)
    with pytest.raises(DataError, match="one image a record; got 0 images for 2 records"):
        model.predict(replace(batch, images=None, image_record=None))
    pages = replace(batch, image_record=torch.tensor([0, 0]))
    with pytest.raises(DataError, match="one image a record"):
        model.predict(pages)
