import pytest
import torch
from safetensors.torch import load, save

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, DataError
from diptych.models.beit3 import BEiT3Config
from diptych.models.capabilities import capabilities_of
from diptych.models.convnet import ConvNetConfig
from diptych.nn.checkpointing import set_checkpointing
from diptych.nn.multiway import MultiwayConfig
from tests.models.small_beit3 import PAPER, ColoursConfig, small_beit3
from tests.models.writers import VOCAB, stirred, text_batch
from tests.reference import beit3 as plain

STEM = ConvNetConfig(widths=(8, 16), depths=(0, 1))
KINDS = {
    "published": small_beit3(),
    "paper": small_beit3(blocks=PAPER),
    "offset": small_beit3(position_offset=2, norm_final=False, tied=True),
}
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}
"""fp32 sums in another order."""


def hidden_patches(rows: int = 3) -> torch.Tensor:
    masked = torch.zeros(rows, 16, dtype=torch.bool)
    masked[:, [0, 5, 6]] = True
    return masked


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("given", ["image", "text", "pair"])
def test_equals_one_record_at_a_time(name, given):
    model, batch = stirred(KINDS[name]), text_batch((5, 2, 7))
    images = batch.images if given != "text" else None
    tokens = batch.tokens if given != "image" else None
    masked = hidden_patches()
    found = model.states(images, tokens, batch.lengths, None if images is None else masked)
    for i, n in enumerate(batch.lengths.tolist()):
        x_image = None if images is None else plain.embed_image(model, images[i], [0, 5, 6])
        x_text = None if tokens is None else plain.embed_text(model, tokens[i, :n].tolist())
        expected = plain.states(model, x_image, x_text)
        p = 0 if images is None else 17
        if images is not None:
            torch.testing.assert_close(found.image[i], expected[:p], **TOLERANCE)
        if tokens is not None:
            torch.testing.assert_close(found.text[i, :n], expected[p:], **TOLERANCE)


@pytest.mark.parametrize("config", [*KINDS.values(), small_beit3(stem=STEM)], ids=[*KINDS, "stem"])
def test_nothing_hidden_is_seen(config):
    model, batch = stirred(config), text_batch((5, 2, 7))
    cells = torch.zeros(4, 4, dtype=torch.bool)
    cells[1, 1:3] = True
    masked = cells.flatten().expand(3, -1)
    pixels = cells.repeat_interleave(4, 0).repeat_interleave(4, 1)
    other = torch.where(pixels, 255 - batch.images, batch.images)
    found, again = (model.states(x, batch.tokens, batch.lengths, masked) for x in (batch.images, other))
    assert torch.equal(found.image, again.image)
    assert torch.equal(found.text, again.text)
    assert not torch.equal(model.states(other).image, model.states(batch.images).image)


def test_padding_is_not_seen():
    model, batch = stirred(small_beit3()), text_batch((5, 2, 7))
    junk = torch.where(torch.arange(7) >= batch.lengths[:, None], 9, batch.tokens)
    found = model.states(batch.images, batch.tokens, batch.lengths)
    again = model.states(batch.images, junk, batch.lengths)
    torch.testing.assert_close(found.image, again.image)
    torch.testing.assert_close(model.encode_text(batch.tokens, batch.lengths), model.encode_text(junk, batch.lengths))


@pytest.mark.parametrize("passes", [0, 2])
def test_likelihoods_are_those_of_each_token_hidden_in_turn(passes):
    model, batch = stirred(small_beit3(likelihood_passes=passes)), text_batch((5, 2, 7))
    found = model.log_likelihood(batch.images[:2], batch.tokens, batch.lengths)
    prior = model.text_prior(batch.tokens, batch.lengths)
    assert found.shape == (2, 3)
    assert found[:, 1].tolist() == [0, 0]  # only start and end
    for j, n in ((0, 5), (2, 7)):
        ids = batch.tokens[j, :n].tolist()
        groups = [range(1 + k, n - 1, passes or n) for k in range(passes or n - 2)]
        for beside, expected in ((None, prior[j]), (0, found[0, j]), (1, found[1, j])):
            image = None if beside is None else plain.embed_image(model, batch.images[beside], [])
            total = 0.0
            for group in groups:
                read = [VOCAB if i in group else t for i, t in enumerate(ids)]
                x = plain.states(model, image, plain.embed_text(model, read))[0 if image is None else 17 :]
                total += sum(float(model.token_logits(x[i]).log_softmax(-1)[ids[i]]) for i in group)
            assert expected.item() == pytest.approx(total, abs=1e-4)


def test_rows_are_read_some_at_a_time(monkeypatch):
    model, batch = stirred(small_beit3()), text_batch((5, 2, 7))
    found = model.log_likelihood(batch.images, batch.tokens, batch.lengths)
    monkeypatch.setattr("diptych.models.beit3.ROWS", 4)
    torch.testing.assert_close(model.log_likelihood(batch.images, batch.tokens, batch.lengths), found)
    one = model.log_likelihood(batch.images[1:2], batch.tokens[2:], batch.lengths[2:])
    torch.testing.assert_close(one[0, 0], found[1, 2])


def test_score_is_what_its_settings_say():
    batch = text_batch((5, 2, 7))
    cosine, likelihood = (stirred(small_beit3(scored_by=s)) for s in ("similarity", "likelihood"))
    given = (batch.images, batch.tokens, batch.lengths)
    unit = cosine.embed_image(batch.images) @ cosine.embed_text(batch.tokens, batch.lengths).T
    torch.testing.assert_close(cosine.score(*given), unit)
    torch.testing.assert_close(likelihood.score(*given), likelihood.log_likelihood(*given))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vectors_are_of_each_side_alone(pooling):
    model, batch = stirred(small_beit3(pooling=pooling)), text_batch((5, 2, 7))
    image = plain.states(model, plain.embed_image(model, batch.images[0], []), None)
    text = plain.states(model, None, plain.embed_text(model, batch.tokens[0, :5].tolist()))
    for found, x, projection in (
        (model.encode_image(batch.images)[0], image, model.image_projection),
        (model.encode_text(batch.tokens, batch.lengths)[0], text, model.text_projection),
    ):
        x = x[1:] if pooling == "mean" and len(x) == 17 else x
        pooled = x[0] if pooling == "cls" else x.mean(0)
        torch.testing.assert_close(found, torch.nn.functional.normalize(projection(pooled), dim=0), **TOLERANCE)
    torch.testing.assert_close(model.image_features(batch.images)[0], image[1:], **TOLERANCE)


def test_filling_in_says_how_badly():
    model, batch = stirred(small_beit3()), text_batch((5, 4, 7))
    masked = hidden_patches()
    found = model.fill_image(batch.images, masked, batch.tokens, batch.lengths)
    assert bool((found[~masked] == 0).all())
    x = plain.states(
        model,
        plain.embed_image(model, batch.images[1], [0, 5, 6]),
        plain.embed_text(model, batch.tokens[1, :4].tolist()),
    )
    codes = model.codes(batch.images)[1]
    assert found[1, 5].item() == pytest.approx(-float(model.code_head(x[6]).log_softmax(-1)[codes[5]]), abs=1e-4)
    blind = model.fill_image(batch.images, masked, None, None)
    assert not torch.allclose(blind, found)
    at = torch.zeros(3, 7, dtype=torch.bool)
    at[:, 2] = True
    said = model.fill_text(batch.tokens, batch.lengths, at, batch.images)
    assert bool((said[~at] == 0).all())
    changed = batch.tokens.clone()
    changed[:, 2] = batch.tokens[:, 1]
    x = model.states(batch.images, torch.where(at, VOCAB, changed), batch.lengths).text
    expected = -model.token_logits(x[0, 2]).log_softmax(-1)[batch.tokens[0, 2]]
    assert said[0, 2].item() == pytest.approx(float(expected), abs=1e-4)
    assert model.fill_grid() == (4, 4)


def test_it_says_what_it_can():
    able = capabilities_of(stirred(small_beit3()))
    assert {"embed_image", "embed_text", "score", "log_likelihood", "fill_in"} == set(able)


@pytest.mark.parametrize("config", [*KINDS.values(), small_beit3(stem=STEM)], ids=[*KINDS, "stem"])
def test_promises_of_a_model(config):
    model, batch = stirred(config), text_batch((5, 2, 7))
    assert from_json(to_json(config.replace(codec=None))) == config.replace(codec=None)
    again = config.build(VOCAB)
    again.load_state_dict(load(save({k: v.contiguous() for k, v in model.state_dict().items()})))
    vectors = model.encode_image(batch.images)
    assert torch.equal(again.eval().encode_image(batch.images), vectors)
    names = dict(model.named_parameters())
    assert all(names[n].ndim >= 2 for n in model.decay_free())
    with torch.autocast("cpu", torch.bfloat16):
        half = model.encode_image(batch.images)
        assert model.states(batch.images, batch.tokens, batch.lengths).text.isfinite().all()
        assert torch.equal(model.codes(batch.images), again.codes(batch.images))
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(half, vectors).min() > 0.99
    set_checkpointing(model, True)
    torch.testing.assert_close(model.encode_image(batch.images), vectors)


def test_images_of_another_size_have_positions_between():
    model = stirred(small_beit3(position_offset=2))
    images = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    assert model.states(images).image.shape == (2, 37, 16)


def test_the_codec_rests():
    model = small_beit3().build(VOCAB).train()
    assert not model.codec.training
    assert not any(p.requires_grad for p in model.codec.parameters())


def test_the_mask_token_is_one_beyond_the_vocabulary_or_inside():
    assert stirred(small_beit3()).text_embed.token_embed.num_embeddings == VOCAB + 1
    inside = stirred(small_beit3(mask_id=4))
    assert inside.mask_id == 4
    assert inside.text_embed.token_embed.num_embeddings == VOCAB


def test_mistakes_are_said():
    with pytest.raises(ConfigError, match=r"codec must be an image tokenizer with a code for each of the \(4, 4\)"):
        small_beit3(codec=ColoursConfig(side=2)).build(VOCAB)
    model = stirred(small_beit3(codec=None))
    with pytest.raises(ConfigError, match=r"model.codec must be an image tokenizer.*got none"):
        model.heads()
    with pytest.raises(DataError, match="at most 12 tokens"):
        model.states(None, torch.zeros(1, 13, dtype=torch.int64), torch.tensor([13]))
    assert BEiT3Config(blocks=MultiwayConfig(depth=1)).codec is None
