import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError
from diptych.core.image_format import ImageFormat
from diptych.models.capabilities import capabilities_of
from diptych.models.convnet import ConvNetConfig
from diptych.models.crossing import cells_of
from diptych.models.maskvlm import MaskVLMConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from tests.models.fill_promises import check, hidden
from tests.models.small_maskvlm import small_conv_maskvlm, small_maskvlm
from tests.models.writers import VOCAB, stirred, text_batch

KINDS = {
    "vit": small_maskvlm,
    "conv": small_conv_maskvlm,
    "untied": lambda: small_maskvlm(tied=False),
    "mask inside": lambda: small_maskvlm(mask_id=4),
    "pixels hidden": lambda: small_maskvlm(
        image=VisionTransformerConfig(width=16, depth=1, heads=2, patch_size=4, pooling="mean"), image_pooling="mean"
    ),
    "bert": lambda: small_maskvlm(
        text=TextTransformerConfig.bert(16, 1, 2),
        crossing=BlockConfig(width=16, depth=1, heads=2, norm_position="post"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hidden_is_filled_in_from_the_rest_and_the_other_side(kind):
    check(stirred(KINDS[kind]()), text_batch((5, 4, 7, 6)))


def test_it_embeds_scores_and_fills_in():
    model = stirred(small_maskvlm())
    assert set(capabilities_of(model)) == {"embed_image", "embed_text", "score", "fill_in"}
    assert from_json(to_json(model.config)) == model.config
    assert from_json(to_json(MaskVLMConfig())) == MaskVLMConfig()


@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_embeddings_are_of_unit_length_whatever_the_batch(kind):
    model, batch = stirred(KINDS[kind]()), text_batch((5, 2, 7))
    for found, one in (
        (model.embed_image(batch.images), model.embed_image(batch.images[1:2])),
        (model.embed_text(batch.tokens, batch.lengths), model.embed_text(batch.tokens[1:2], batch.lengths[1:2])),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(found[1:2], one, atol=1e-6, rtol=1e-5)


def test_every_pair_is_scored_as_if_alone():
    model, batch = stirred(small_maskvlm()), text_batch((5, 2, 7))
    scores = model.score(batch.images[:2], batch.tokens, batch.lengths)
    assert scores.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            n = int(batch.lengths[j])
            image = model.enter_image(model.image_states(model.normalise(batch.images[i : i + 1])))
            text = model.enter_text(model.text_states(batch.tokens[j : j + 1, :n], batch.lengths[j : j + 1]))
            logits = model.matching_logits(image, text, batch.lengths[j : j + 1])[0]
            assert scores[i, j].item() == pytest.approx((logits[1] - logits[0]).item(), abs=1e-5)


def test_similarity_is_the_cosine():
    model, batch = stirred(small_maskvlm(scored_by="similarity")), text_batch((5, 2, 7))
    cosines = model.embed_image(batch.images) @ model.embed_text(batch.tokens, batch.lengths).T
    torch.testing.assert_close(model.score(batch.images, batch.tokens, batch.lengths), cosines)


@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_what_is_not_hidden_stays_as_it_was(kind):
    model, batch = stirred(KINDS[kind]()), text_batch((5, 4, 7))
    masked = hidden(3, 16)
    found = model.rebuild(batch.images, masked, batch.tokens, batch.lengths)
    assert found.dtype == torch.uint8
    where = masked.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
    assert torch.equal(found[~where], batch.images[~where])
    cells = cells_of(model.normalise(found), 4)
    wanted = model._painted(model.normalise(batch.images), masked, batch.tokens, batch.lengths)
    shown = cells_of(model.normalise(batch.images).new_ones(3, 3, 16, 16) * model.pixel_std, 4)  # a unit of colour
    near = ((cells - wanted).abs() * shown * 255)[masked]
    inside = cells_of(found.float(), 4)[masked]
    assert (near[(inside > 0) & (inside < 255)] <= 0.51).all()  # rounded, and kept within 0..255
    errors = model.fill_image(batch.images, masked, batch.tokens, batch.lengths)
    truth = cells_of(model.normalise(batch.images), 4)
    torch.testing.assert_close(errors[masked], (wanted - truth).abs().mean(-1)[masked])
    assert model.rebuild(batch.images, masked, None, None).shape == batch.images.shape


def test_the_mask_token_is_behind_the_vocabulary_and_foreseen_by_none():
    model = stirred(small_maskvlm())
    assert model.mask_id == VOCAB
    assert model.text_tower.token_embed.num_embeddings == VOCAB + 1
    weight, bias = model.head()
    assert weight.shape == (VOCAB, 14)
    assert bias.shape == (VOCAB,)
    inside = stirred(small_maskvlm(mask_id=4))
    assert inside.text_tower.token_embed.num_embeddings == VOCAB


def test_what_nothing_is_read_of_does_not_train():
    for kind, frozen in (
        ("vit", {"image_tower.projection.weight", "text_tower.projection.weight"}),
        ("conv", {"image_tower.projection.weight", "text_tower.projection.weight"}),
    ):
        model = KINDS[kind]().build(VOCAB)
        assert {n for n, p in model.named_parameters() if not p.requires_grad} == frozen
    assert {n.split(".")[0] for n in model.decay_free()} == {"text_tower", "image_position"}


def test_images_of_another_size_keep_their_cells():
    model = stirred(small_conv_maskvlm())
    images = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    batch, masked = text_batch((5, 4)), hidden(2, 36)
    assert model.fill_image(images, masked, batch.tokens, batch.lengths).shape == (2, 36)
    assert model.embed_image(images).shape == (2, 8)


def test_first_weights_do_not_depend_on_the_device():
    with torch.device("meta"):
        model = small_maskvlm().build(VOCAB)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        "image_tower.projection.weight",
        "text_tower.projection.weight",
    }


def test_settings_that_do_not_fit_are_said():
    with pytest.raises(ConfigError, match=r"decoder.width must be that of crossing.* got 8 and 16"):
        small_maskvlm(decoder=BlockConfig(width=8, heads=2))
    with pytest.raises(ConfigError, match=r"crossing.cross_attention and context_width must be left out"):
        small_maskvlm(crossing=BlockConfig(width=16, heads=2, cross_attention="plain"))
    with pytest.raises(ConfigError, match=r"text.attention must be 'bidirectional'"):
        small_maskvlm(text=TextTransformerConfig(width=16, depth=1, heads=2))
    with pytest.raises(ConfigError, match=r"image_pooling must be 'mean' for an image tower without a CLS"):
        small_conv_maskvlm(image_pooling="first").build(VOCAB)
    odd = ConvNetConfig(widths=(8, 12), depths=(0, 1), norm="group")
    with pytest.raises(ConfigError, match=r"a square grid of cells that divides the resolution; got 25 tokens at 18"):
        small_conv_maskvlm(image=odd, image_format=ImageFormat(resolution=18)).build(VOCAB)
