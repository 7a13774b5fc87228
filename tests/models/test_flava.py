import pytest
import torch
from safetensors.torch import load, save

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError
from diptych.models.capabilities import capabilities_of
from diptych.models.convnet import ConvNetConfig
from diptych.models.flava import FlavaConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.nn.draws import uniform
from tests.models.small_flava import ColoursConfig, small_flava, stirred_flava
from tests.models.writers import text_batch

CONV = ConvNetConfig(widths=(8, 16), depths=(0, 1))


@pytest.fixture(params=["vit", "conv"])
def model(request):
    return stirred_flava() if request.param == "vit" else stirred_flava(image=CONV)


def test_settings_and_weights_survive(model, monkeypatch):
    monkeypatch.setenv("DIPTYCH_TRUST", "tests")  # where the small codec is from
    assert from_json(to_json(model.config)) == model.config
    batch, again = text_batch(), model.config.build(30).eval()
    again.load_state_dict(load(save({k: v.contiguous() for k, v in model.state_dict().items()})))
    for score in ("similarity", "matching"):
        mine, other = (type(m)(m.config.replace(scored_by=score), 30).eval() for m in (model, again))
        mine.load_state_dict(model.state_dict())
        other.load_state_dict(again.state_dict())
        args = (batch.images, batch.tokens, batch.lengths)
        assert torch.equal(mine.score(*args), other.score(*args))
    assert model.decay_free() <= dict(model.named_parameters()).keys()
    assert {"embed_image", "embed_text", "score", "fill_in"} <= set(capabilities_of(model))


def test_states_are_those_of_a_grid_after_a_cls_or_none(model):
    batch = text_batch()
    cls = int(not isinstance(model.config.image, ConvNetConfig))
    assert model.grid == model.fill_grid() == (4, 4)
    assert model.prefix == cls
    states, normed = model.image_states(batch.images)
    assert states.shape == normed.shape == (3, 16 + cls, 16)
    torch.testing.assert_close(normed, model.image_tower.tokens(model.normalise(batch.images)))
    assert torch.equal(states, normed) != bool(cls)
    assert model.image_features(batch.images).shape == (3, 16 + cls, 16)
    text, normed = model.text_states(batch.tokens, batch.lengths)
    torch.testing.assert_close(normed, model.text_tower.tokens(batch.tokens, batch.lengths))
    fused = model.fusion(states, text, batch.lengths)
    assert fused.shape == (3, 1 + 16 + cls + 7, 16)
    assert torch.equal(model.cells_of(fused, fused=True), fused[:, 1 + cls : 17 + cls])
    assert torch.equal(model.text_of(fused, 7), fused[:, 17 + cls :])


def test_padding_changes_nothing(model):
    batch, image = text_batch((5,)), torch.randn(1, 16 + model.prefix, 16)
    text = model.text_states(batch.tokens, batch.lengths)[0]
    wide = torch.cat([text, torch.randn(1, 3, 16)], dim=1)
    narrow = model.fusion(image, text, batch.lengths)
    torch.testing.assert_close(model.fusion(image, wide, batch.lengths)[:, : narrow.shape[1]], narrow)


def test_what_is_hidden_is_not_seen(model):
    batch = text_batch((9, 6, 8))
    masked = uniform(batch.sample_keys, "cells", 16) < 0.4
    pixels = masked.view(3, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    changed = torch.where(pixels, 255 - batch.images, batch.images)
    for mine, other in zip(model.image_states(batch.images, masked), model.image_states(changed, masked), strict=True):
        assert torch.equal(mine, other)
    words = torch.zeros_like(batch.tokens, dtype=torch.bool)
    words[:, 2] = True
    other = batch.tokens.clone()
    other[:, 2] = (other[:, 2] + 3) % 30
    before = model.fill_text(batch.tokens, batch.lengths, words, batch.images)
    logits = model.text_states(batch.tokens.masked_fill(words, 30), batch.lengths)[0]
    assert torch.equal(logits, model.text_states(other.masked_fill(words, 30), batch.lengths)[0])
    assert (before[~words] == 0).all()
    assert (before[words] > 0).all()


def test_filling_in_is_minus_log_p_of_what_was_hidden(model):
    batch = text_batch((5, 7))
    masked = uniform(batch.sample_keys, "cells", 16) < 0.4
    codes = model.codes(batch.images)
    states, normed = model.image_states(batch.images, masked)
    fused = model.fusion(states, model.text_states(batch.tokens, batch.lengths)[0], batch.lengths)
    pairs = (
        (model.fill_image(batch.images, masked, batch.tokens, batch.lengths), model.image_head, fused[:, -23:-7]),
        (model.fill_image(batch.images, masked, None, None), model.mim_head, normed[:, -16:]),
    )
    for found, head, x in pairs:
        wanted = -head.decoder(head(x)).log_softmax(-1).gather(2, codes[..., None])[..., 0]
        torch.testing.assert_close(found, wanted.masked_fill(~masked, 0))
    words = torch.tensor([[False, True, True, False, False, False, False]]).expand(2, 7)
    hidden = model.text_states(batch.tokens.masked_fill(words, model.mask_id), batch.lengths)[1]
    wanted = -model.mlm_head.decoder(model.mlm_head(hidden)).log_softmax(-1).gather(2, batch.tokens[..., None])[..., 0]
    torch.testing.assert_close(model.fill_text(batch.tokens, batch.lengths, words, None), wanted * words)


def test_scores_are_cosines_or_the_odds_of_a_match():
    batch = text_batch()
    args = (batch.images, batch.tokens, batch.lengths)
    model = stirred_flava()
    torch.testing.assert_close(model.score(*args), model.embed_image(args[0]) @ model.embed_text(*args[1:]).T)
    judge = stirred_flava(scored_by="matching")
    grid = judge.score(*args)
    for i in range(3):
        for j in range(3):
            one = slice(j, j + 1)
            text = judge.text_states(batch.tokens[one, : int(batch.lengths[j])], batch.lengths[one])[0]
            fused = judge.fusion(judge.image_states(batch.images[i : i + 1])[0], text, batch.lengths[one])
            logits = judge.matching_head(fused[:, 0])[0]
            assert grid[i, j].item() == pytest.approx((logits[1] - logits[0]).item(), abs=1e-5)


def test_a_mask_token_may_be_part_of_the_vocabulary():
    inside, beyond = stirred_flava(mask_id=4), stirred_flava()
    assert (inside.mask_id, len(inside.text_tower.token_embed.weight)) == (4, 30)
    assert (beyond.mask_id, len(beyond.text_tower.token_embed.weight)) == (30, 31)
    assert beyond.text_head.decoder.out_features == 31


def test_what_does_not_fit_is_said():
    with pytest.raises(ConfigError, match=r"a code for each of the image tower's \(4, 4\) cells; got .* \(2, 2\)"):
        small_flava(codec=ColoursConfig(side=2)).build(30)
    with pytest.raises(ConfigError, match="must be an image tokenizer where codes are to be foreseen; got none"):
        stirred_flava(codec=None).codes(text_batch().images)
    with pytest.raises(ConfigError, match="text must see the whole text"):
        small_flava(text=TextTransformerConfig())
    with pytest.raises(ConfigError, match="patch_dropout must be 0"):
        small_flava(image=small_flava().image.replace(patch_dropout=0.5))


def test_the_papers_sizes():
    with torch.device("meta"):
        model = FlavaConfig(context_length=77).build(30521)
    towers = [sum(p.numel() for p in m.parameters()) for m in (model.image_tower, model.text_tower, model.fusion)]
    assert [round(n / 1e6) for n in towers] == [86, 109, 44]
    assert model.grid == (14, 14)
