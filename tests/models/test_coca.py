from dataclasses import replace

import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, DataError
from diptych.core.image_format import ImageFormat
from diptych.models.capabilities import capabilities_of
from diptych.models.coca import CoCaConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.generate import Generation
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from tests.models.writers import greedy_again, stirred, summed, text_batch


def small_coca(**changes) -> CoCaConfig:
    plain = {
        "image_format": ImageFormat(resolution=16),
        "context_length": 12,
        "embed_dim": 8,
        "image": VisionTransformerConfig(width=24, depth=1, heads=2, patch_size=8),
        "text": BlockConfig(width=16, depth=2, heads=2),
        "decoder": BlockConfig(width=16, depth=2, heads=4),
        "queries": 5,
        "pooler_heads": 2,
    }
    return CoCaConfig(**plain | changes)


KINDS = {
    "cascade": small_coca(),
    "parallel": small_coca(pooling="parallel"),
    "legacy": small_coca(pooling="legacy", cls_mask="legacy"),
    "convnet": small_coca(image=ConvNetConfig(widths=(8, 16), depths=(0, 1), pool_norm="batch")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_trainable_parameter_gets_a_gradient_and_settings_survive(kind):
    assert from_json(to_json(KINDS[kind])) == KINDS[kind]
    model = stirred(KINDS[kind])
    both = model.encode_pairs(text_batch())
    loss = model.logits(both.said.hidden).log_softmax(-1)[:, 3].sum() + (both.image @ both.text.T).diagonal().sum()
    (loss * model.log_logit_scale.exp()).backward()
    for name, p in model.named_parameters():
        assert p.requires_grad == (p.grad is not None), name
    assert model.decay_free() <= dict(model.named_parameters()).keys()


@pytest.mark.parametrize("kind", KINDS)
def test_one_forward_gives_what_each_half_gives(kind):
    model, batch = stirred(KINDS[kind]), text_batch((5, 2, 7))
    both = model.encode_pairs(batch)
    torch.testing.assert_close(both.image, model.encode_image(batch.images))
    torch.testing.assert_close(both.text, model.encode_text(batch.tokens, batch.lengths))
    torch.testing.assert_close(both.said.hidden, model.predict(batch).hidden)
    torch.testing.assert_close(both.image.norm(dim=1), torch.ones(3))
    score = model.score(batch.images, batch.tokens, batch.lengths)
    torch.testing.assert_close(score, both.image @ both.text.T)
    assert model.features_of(batch).shape == (3, model.image_tokens, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_embeds_alike_however_it_is_padded_and_beside_whatever(kind):
    model, batch = stirred(KINDS[kind]), text_batch((5, 2, 12))
    alone = torch.cat(
        [model.encode_text(row[None, :n], torch.tensor([n])) for row, n in zip(batch.tokens, (5, 2, 12), strict=True)]
    )
    junk = torch.where(torch.arange(12) < batch.lengths[:, None], batch.tokens, 7)
    torch.testing.assert_close(model.encode_text(junk, batch.lengths), alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_of_a_grid_are_those_of_each_pair(kind):
    model, batch = stirred(KINDS[kind]), text_batch()
    grid = model.log_likelihood(batch.images, batch.tokens, batch.lengths)
    for shift in range(3):
        turned = replace(batch, images=batch.images.roll(shift, 0))
        pairs = grid[(torch.arange(3) - shift) % 3, torch.arange(3)]
        # keys of the image from a cache, rows by their own: sums in another order
        torch.testing.assert_close(pairs, summed(model, turned), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", ["cascade", "legacy"])
def test_it_writes_what_the_whole_forward_finds_likeliest(kind):
    model, batch = stirred(KINDS[kind]), text_batch()
    written = model.generate_text(batch.images, None, Generation(start_id=2, end_id=1, max_tokens=5))
    assert written == [greedy_again(model, image, [2], 1, 5) for image in batch.images]


def test_reading_bit_by_bit_is_the_whole_forward():
    model, batch = stirred(KINDS["cascade"]), text_batch((6, 3, 4))
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


def test_the_paper_cascades_and_open_clip_takes_the_first_query():
    cascade, legacy = stirred(KINDS["cascade"]), stirred(KINDS["legacy"])
    images = text_batch().images
    for model in (cascade, legacy):
        x = model.image_vectors(images).unflatten(1, (-1, 24))
        assert x.shape[1] == 1 + 4  # a CLS and four patches
        tokens = model.pooler(x)
        pooled = tokens[:, 0] if model is legacy else model.pooler_contrastive(tokens)[:, 0]
        unit = torch.nn.functional.normalize(pooled @ model.image_projection.weight.T, dim=-1)
        torch.testing.assert_close(model.encode_image(images), unit)
    assert (cascade.image_tokens, legacy.image_tokens) == (5, 4)


def test_capabilities_are_those_of_both():
    assert set(capabilities_of(stirred(KINDS["cascade"]))) == {
        "embed_image", "embed_text", "score", "generate_text", "log_likelihood",
    }  # fmt: skip


def test_the_temperature_is_held():
    model = stirred(KINDS["cascade"])
    with torch.no_grad():
        model.log_logit_scale.fill_(9.0)
    model.after_step()
    assert float(model.log_logit_scale.detach().exp()) == pytest.approx(100)


def test_a_table_of_vectors_stands_for_images():
    model, batch = stirred(KINDS["cascade"]), text_batch()
    vectors = model.image_vectors(batch.images)
    assert vectors.shape == (3, model.table_width("image"))
    cached = model.encode_pairs(replace(batch, images=None, cached={"image": vectors}))
    torch.testing.assert_close(cached.image, model.encode_pairs(batch).image)


def test_what_does_not_fit_is_refused():
    for changes, words in (
        ({"decoder": BlockConfig(width=32, heads=2)}, "width must be that of text"),
        ({"text": BlockConfig(width=16, heads=2, cross_attention="plain")}, "must be 'none'"),
        ({"pooler_heads": 3}, "must divide text.width"),
        ({"pooling": "legacy", "queries": 1}, "at least 2"),
    ):
        with pytest.raises(ConfigError, match=words):
            small_coca(**changes)
    model, batch = stirred(KINDS["cascade"]), text_batch()
    with pytest.raises(DataError, match="one image a record"):
        model.encode_pairs(replace(batch, images=None, image_record=None))
    with pytest.raises(DataError, match="at most 12 tokens"):
        model.encode_text(torch.ones(1, 13, dtype=torch.int64), torch.tensor([13]))
