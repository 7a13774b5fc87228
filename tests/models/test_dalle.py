"""DALL-E against its plain form, and what must not matter to it."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, DataError
from diptych.models import dalle as module
from diptych.models.capabilities import capabilities_of
from diptych.models.dalle import Dalle, DalleConfig
from diptych.models.painting import Painting
from diptych.nn.block import BlockConfig
from tests.models.small_codec import CELLS, CODES, small_codec, spread
from tests.models.towers import stir
from tests.models.writers import VOCAB, text_batch
from tests.reference import dalle as plain


def small_dalle(**changes) -> DalleConfig:
    """Two blocks over 12 places of text and 16 codes."""
    settings = {
        "codec": small_codec(),
        "image_format": small_codec().image_format,
        "context_length": 12,
        "decoder": BlockConfig(width=16, depth=2, heads=2),
    }
    return DalleConfig(**settings | changes)


def stirred_dalle(seed: int = 0) -> Dalle:
    torch.manual_seed(seed)
    model = small_dalle().build(VOCAB)
    stir(model, 0.3)
    return spread(model.eval())


def texts_of(batch) -> Iterator[list[int]]:
    return (row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths, strict=True))


@pytest.fixture
def model() -> Dalle:
    return stirred_dalle()


def test_settings_survive_and_what_it_can_do_is_known(model):
    config = small_dalle(guidance=2.0, features_after=1)
    assert from_json(to_json(config)) == config
    assert capabilities_of(model) == ("score", "generate_image", "image_prior")
    assert model.decay_free() <= dict(model.named_parameters()).keys()


def test_the_codec_of_the_tests_uses_its_codes(model):
    assert len(model.codes(text_batch(range(1, 9)).images).unique()) > CODES / 2


def test_scores_are_those_of_each_pair_alone(model, monkeypatch):
    batch = text_batch((5, 2, 12))
    codes = model.codes(batch.images)
    wanted = torch.stack(
        [torch.stack([plain.likelihood(model, text, row.tolist()) for text in texts_of(batch)]) for row in codes]
    )
    for numbers in (1 << 22, 1 << 11):  # all pairs at once; two at a time
        monkeypatch.setattr(module, "NUMBERS", numbers)
        found = model.score(batch.images, batch.tokens, batch.lengths)
        torch.testing.assert_close(found, wanted.detach(), atol=1e-4, rtol=1e-5)
    assert found.std(1).min() > 1e-3, "texts matter"
    prior = torch.stack([plain.likelihood(model, [], row.tolist()) for row in codes])
    torch.testing.assert_close(model.image_prior(batch.images), prior.detach(), atol=1e-4, rtol=1e-5)


def test_what_is_predicted_from_what_is_that_of_whole_rows(model):
    batch = text_batch((5, 2, 12))
    codes = model.codes(batch.images)
    found = model.predict(batch.tokens, batch.lengths, codes)
    image = torch.cat([plain.states(model, t, c.tolist())[11:-1] for t, c in zip(texts_of(batch), codes, strict=True)])
    text = torch.cat(
        [plain.states(model, t, c.tolist())[: len(t) - 1] for t, c in zip(texts_of(batch), codes, strict=True)]
    )
    torch.testing.assert_close(found.image, image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.text, text, atol=1e-5, rtol=1e-5)
    assert found.words.tolist() == [w for t in texts_of(batch) for w in t[1:]]
    assert found.record.tolist() == [0] * 4 + [1] + [2] * 11
    assert torch.equal(found.codes, codes.flatten())


@pytest.mark.parametrize(
    ("guidance", "settings"), [(1.0, {}), (2.5, {"temperature": 0.7, "top_k": 5, "top_p": 0.8}), (0.0, {})]
)
def test_painting_with_a_cache_is_painting_without(model, guidance, settings):
    batch, how = text_batch((5, 12)), Painting(seed=3, guidance=guidance, **settings)
    found = model.generate_codes(batch.tokens, batch.lengths, how)
    assert torch.equal(found, plain.paint(model, list(texts_of(batch)), how, guidance))
    assert model.generate_image(batch.tokens, batch.lengths, how).shape == (2, 3, 16, 16)


def painted(model: Dalle, batch, **how) -> Tensor:
    return model.generate_codes(batch.tokens, batch.lengths, Painting(**how))


def test_a_text_is_painted_alike_whatever_is_beside_it(model):
    batch = text_batch((5, 2, 12, 4))
    whole = painted(model, batch, seed=1, guidance=2.0)
    for i in range(4):
        assert torch.equal(painted(model, batch.slice(i, i + 1), seed=1, guidance=2.0, first=i)[0], whole[i])
    assert not torch.equal(painted(model, batch, seed=2, guidance=2.0), whole)
    assert torch.equal(painted(model, batch, seed=1, guidance=2.0), whole)


def test_guidance_left_out_is_that_of_the_settings(model):
    batch = text_batch((5, 2))
    plainly = painted(model, batch, guidance=1.0)
    assert torch.equal(painted(model, batch), plainly)
    model.config = model.config.replace(guidance=4.0)
    assert torch.equal(painted(model, batch), painted(model, batch, guidance=4.0))
    assert not torch.equal(painted(model, batch), plainly)


def test_nothing_of_a_dropped_text_is_left(model):
    batch = text_batch((5, 2, 12))
    codes, dropped = model.codes(batch.images), torch.tensor([True, False, True])
    other = (batch.tokens + 3) % VOCAB
    found = [model.predict(t, batch.lengths, codes, dropped).image.view(3, CELLS, -1) for t in (batch.tokens, other)]
    assert torch.equal(found[0][dropped], found[1][dropped])
    assert not torch.allclose(found[0][1], found[1][1], atol=1e-3)
    nothing = model.predict(batch.tokens[:, :0], torch.zeros(3, dtype=torch.int64), codes).image.view(3, CELLS, -1)
    torch.testing.assert_close(found[0][dropped], nothing[dropped], atol=1e-6, rtol=1e-5)


def test_padding_does_not_matter_and_later_codes_do_not(model):
    batch = text_batch((5, 2, 7))
    codes = model.codes(batch.images)
    before = model.predict(batch.tokens, batch.lengths, codes).image.view(3, CELLS, -1)
    real = torch.arange(7) < batch.lengths[:, None]
    longer = torch.cat([torch.where(real, batch.tokens, 0), torch.full((3, 2), 9)], 1)
    after = codes.clone()
    after[:, 6:] = (after[:, 6:] + 1) % CODES
    changed = model.predict(longer, batch.lengths, after).image.view(3, CELLS, -1)
    torch.testing.assert_close(changed[:, :7], before[:, :7], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(changed[:, 7:], before[:, 7:], atol=1e-3)


def test_features_are_states_of_a_middle_block(model):
    batch = text_batch((5, 2, 7))
    features = model.image_features(batch.images)
    assert features.shape == (3, CELLS, 16)
    codes = model.codes(batch.images)
    x = torch.cat([model.words(batch.tokens[:, :0], torch.zeros(3, dtype=torch.int64)), model.squares(codes)], 1)
    torch.testing.assert_close(features, model.blocks[0](x, plain.MaskPlan(is_causal=True))[:, 12:])


def test_a_text_that_is_too_long_is_refused(model):
    with pytest.raises(DataError, match="a text must have at most 12 tokens; got 13"):
        model.score(text_batch().images, torch.ones(1, 13, dtype=torch.int64), torch.tensor([13]))


def test_a_model_without_codes_is_no_codec(monkeypatch):
    monkeypatch.setattr(type(small_codec()), "build", lambda self: torch.nn.Identity())
    with pytest.raises(ConfigError, match="codec must be a codec with a codebook; got Identity"):
        small_dalle().build(10)
