"""Chameleon against its plain form, and what must not matter to it. What every writer promises is tested beside."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError
from diptych.models.capabilities import capabilities_of
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.chameleon import Chameleon, ChameleonConfig
from diptych.models.generate import Generation
from diptych.models.model import ModelConfig
from diptych.models.painting import Painting
from tests.models.small_codec import CELLS, CODES, small_codec, spread
from tests.models.test_dalle import texts_of
from tests.models.towers import stir
from tests.models.writers import VOCAB, text_batch
from tests.reference import chameleon as plain


def small_chameleon(**changes) -> ChameleonConfig:
    """Two blocks over words and 16 codes an image."""
    language = CausalTransformerConfig(
        width=16, depth=2, heads=2, activation="swiglu", norm="rms", bias=False, qk_norm="layer", tied=False
    )
    settings = {
        "codec": small_codec(),
        "image_format": small_codec().image_format,
        "context_length": 12,
        "language": language,
        "max_images": 3,
    }
    return ChameleonConfig(**settings | changes)


def stirred_chameleon(config: ModelConfig | None = None) -> Chameleon:
    torch.manual_seed(0)
    model = (config or small_chameleon()).build(VOCAB)
    stir(model, 0.3)
    return spread(model.eval())


@pytest.fixture(params=[False, True], ids=["behind", "within"])
def model(request) -> Chameleon:
    return stirred_chameleon(small_chameleon(codes_within=request.param))


def interleaved() -> Batch:
    """Three records with two, no and one image, at places in the text."""
    batch = text_batch((5, 3, 6))
    return replace(
        batch,
        images=torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(3), dtype=torch.uint8),
        image_record=torch.tensor([0, 0, 2]),
        image_position=torch.tensor([1, 5, 2]),
    )


def words_only(batch: Batch) -> Batch:
    """With ids that are words also where codes and marks are among them."""
    return replace(batch, tokens=batch.tokens % (VOCAB - CODES - 2))


def test_what_it_can_do_is_known():
    model = stirred_chameleon()
    assert capabilities_of(model) == ("score", "generate_text", "log_likelihood", "generate_image")
    assert model.language.vocab_size == VOCAB + CODES + 2
    assert model.image_tokens == CELLS + 2


@pytest.mark.parametrize("batch", [text_batch((5, 2, 7, 3)), interleaved()], ids=["pairs", "interleaved"])
def test_every_token_is_predicted_from_the_place_before_it(model, batch):
    batch = words_only(batch)
    first = [True, False, True, False][: batch.size]
    found = model.predict_mixed(batch, torch.tensor(first))
    rows = plain.rows_of(model, batch, first)
    wanted: dict[str, list[tuple[int, Tensor]]] = {"text": [], "image": []}
    for row in rows:
        logits = plain.logits_of(model, [i for i, _ in row])
        for place in range(1, len(row)):
            if row[place][1] != "silent":
                wanted[row[place][1]].append((row[place][0], logits[place - 1]))
    for kind, weights in (("text", found.text), ("image", found.image)):
        chosen = weights > 0
        mine = model.language.logits(found.hidden[chosen])
        theirs = torch.stack([x for _, x in wanted[kind]])
        # packed rows may hold records in another order
        a = torch.cat([found.targets[chosen][:, None].float(), mine], 1)
        b = torch.cat([torch.tensor([[float(i)] for i, _ in wanted[kind]]), theirs], 1)
        order_a, order_b = (x.double().sum(1).argsort() for x in (a, b))
        torch.testing.assert_close(a[order_a], b[order_b], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("guidance", "settings"), [(1.0, {}), (2.5, {"temperature": 0.7, "top_k": 5, "top_p": 0.8})])
def test_painting_with_a_cache_is_painting_without(model, guidance, settings):
    batch, how = words_only(text_batch((5, 2))), Painting(seed=3, guidance=guidance, **settings)
    found = model.generate_codes(batch.tokens, batch.lengths, how)
    assert torch.equal(found, plain.paint(model, list(texts_of(batch)), how, guidance))
    assert model.generate_image(batch.tokens, batch.lengths, how).shape == (2, 3, 16, 16)


def painted(model: Chameleon, batch: Batch, **how) -> Tensor:
    return model.generate_codes(batch.tokens, batch.lengths, Painting(**how))


def test_a_text_is_painted_alike_whatever_is_beside_it():
    model, batch = stirred_chameleon(), text_batch((5, 2, 12, 4))
    whole = painted(model, batch, seed=1, guidance=2.0)
    for i in range(4):
        assert torch.equal(painted(model, batch.slice(i, i + 1), seed=1, guidance=2.0, first=i)[0], whole[i])
    assert not torch.equal(painted(model, batch, seed=2, guidance=2.0), whole)
    model.config = model.config.replace(guidance=2.0)
    assert torch.equal(painted(model, batch, seed=1), whole)


def test_it_never_says_a_code(model):
    batch = words_only(text_batch((5, 2, 7)))
    said = model.generate_text(batch.images, None, Generation(max_tokens=6, top_p=0.99, seed=4))
    forbidden = {*model.code_ids.tolist(), *model.mark_ids.tolist()}
    assert not forbidden & {i for row in said for i in row}
    log_p = model.logits(model.predict(batch).hidden).log_softmax(-1)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(len(log_p)))
    if model.config.codes_within:
        assert log_p[:, sorted(forbidden)].max() < -1e8


def test_the_prior_of_a_text_is_what_it_is_without_an_image():
    model, batch = stirred_chameleon(), text_batch((5, 2, 7))
    found = model.text_prior(batch.tokens, batch.lengths)
    for log_p, text in zip(found, texts_of(batch), strict=True):
        rows = plain.logits_of(model, text)[:, :VOCAB].log_softmax(-1)
        wanted = sum(rows[i, w] for i, w in enumerate(text[1:]))
        torch.testing.assert_close(log_p, wanted.detach(), atol=1e-4, rtol=1e-5)


def test_features_are_embeddings_and_states_of_a_middle_block():
    model, batch = stirred_chameleon(), text_batch((5, 2, 7))
    ids = model.image_ids(model.codes(batch.images))
    features = model.image_features(batch.images)
    assert features.shape == (3, CELLS + 2, 32)
    assert torch.equal(features[..., :16], model.language.embed(ids))
    seen: list[Tensor] = []
    model.language(
        model.language.embed(ids),
        plain.MaskPlan(is_causal=True),
        torch.arange(CELLS + 2)[None],
        before=lambda i, x: seen.append(x) or x,
    )
    torch.testing.assert_close(features[..., 16:], seen[1])


def test_positions_must_be_those_of_one_sequence():
    with pytest.raises(ConfigError, match="positions must be 'rope'"):
        small_chameleon(language=CausalTransformerConfig(width=16, heads=2, positions="learned"))
