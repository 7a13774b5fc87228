"""Tests against transformers' FlavaForPreTraining: parity from random weights in three kinds of batch, there and back,
and where theirs is otherwise than the paper or than one would think."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diptych.checkpoints.convert import assemble, convert, convert_to, read
from diptych.checkpoints.transformers_flava import TYPES, write
from diptych.core.batch import Batch
from diptych.core.errors import CheckpointError
from diptych.models.flava import Flava
from diptych.nn.block import BlockConfig
from diptych.nn.patch_masking import mask_patches
from diptych.nn.token_masking import mask_tokens
from diptych.objectives.flava import FlavaObjective, FlavaObjectiveConfig
from tests.checkpoints.tiny import TOLERANCE, assert_equal_states, pixels, randomise, tokenizer, trained
from tests.models.small_flava import ColoursConfig, small_flava
from tests.reference import flava as plain

transformers = pytest.importorskip("transformers")

CODES = 27
"""Of the codec of colours, which gives both sides their labels."""
OF = {"mmm_image": "mmm_image", "mmm_text": "mmm_text", "matching": "itm", "contrast": "global_contrastive"}


def save_theirs(path: Path, **values: Any) -> Any:
    block = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.FlavaConfig(
        image_config={**block, "image_size": 16, "patch_size": 4, "vocab_size": CODES},
        text_config={**block, "vocab_size": tokenizer().vocab_size, "max_position_embeddings": 16},
        multimodal_config=block,
        **{"hidden_size": 32, "projection_dim": 24, "init_codebook": False, **values},
    )
    model = transformers.FlavaForPreTraining(config).eval()
    randomise(model)
    model.save_pretrained(path)
    return model


def ours(path: Path, **changes: Any) -> Flava:
    """The model that a folder of theirs becomes, with the codec of colours."""
    found = read("transformers", path)
    model = assemble(found, tokenizer()).model
    with_codec = found.config.replace(codec=ColoursConfig(), **changes).build(found.vocab_size)
    with_codec.load_state_dict(model.state_dict(), strict=False)
    assert isinstance(with_codec, Flava)
    return with_codec.eval()


class Both:
    """The same records for both sides, masked by the keys of ours. `wrong`: which records' texts are those of others
    to them, as a loader of theirs makes them before the model sees any."""

    def __init__(self, theirs: Any, model: Flava, config: FlavaObjectiveConfig) -> None:
        self.theirs, self.model, self.config = theirs, model, config
        self.objective = FlavaObjective(config, model)
        lengths = (9, 4, 7, 5, 6, 8)
        self.batch = Batch(
            images=pixels(6, 16),
            tokens=torch.randint(3, 290, (6, 9), generator=torch.Generator().manual_seed(3)),
            lengths=torch.tensor(lengths),
            sample_keys=torch.arange(6),
        )
        b = self.batch
        self.real = torch.arange(9) < b.lengths[:, None]
        self.cells = mask_patches(b.sample_keys, model.grid, config.image_masking)
        self.words = mask_tokens(
            b.tokens, b.lengths, b.sample_keys, config.text_masking, model.mask_id, model.vocab_size
        )

    def inputs(self, image: bool, text: bool) -> dict[str, Tensor]:
        b, found = self.batch, {}
        if image:  # theirs writes into the labels that it is given
            found |= {
                "pixel_values": self.model.normalise(b.images),
                "bool_masked_pos": self.cells,
                "mim_labels": self.model.codes(b.images).clone(),
            }
        if text:
            found |= {
                "input_ids": b.tokens,
                "input_ids_masked": self.words.tokens,
                "attention_mask": self.real.long(),
                "mlm_labels": b.tokens.masked_fill(~self.words.masked, -100),
            }
        return found

    def check_gradients(self, total: Tensor, their_total: Tensor, names: dict[str, str]) -> None:
        total.backward()
        their_total.backward()
        mine, yours = dict(self.model.named_parameters()), dict(self.theirs.named_parameters())
        for name, their_name in names.items():
            a, b = mine[name].grad, yours[their_name].grad
            assert a is not None
            assert a.abs().max() > 1e-6, f"{name} must have a gradient to compare"
            torch.testing.assert_close(a, b.reshape(a.shape), rtol=1e-3, atol=1e-5 * float(a.abs().max()) + 1e-6)


def both(path: Path, **changes: Any) -> Both:
    settings = {"image_alone": 0.0, "text_alone": 0.0, "mismatched": 0.0, "duplicates": "ignore"}
    return Both(save_theirs(path), ours(path), FlavaObjectiveConfig(**settings | changes))


def test_unit_vectors_states_and_logits_equal_theirs(tmp_path: Path) -> None:
    x = both(tmp_path)
    model, b = x.model, x.batch
    with torch.no_grad():
        out = x.theirs(**x.inputs(True, True), return_loss=False, skip_unmasked_multimodal_encoder=False)
        image, text = model.encode_image(b.images), model.encode_text(b.tokens, b.lengths)
        torch.testing.assert_close(
            model.log_logit_scale.exp() * image @ text.T, out.contrastive_logits_per_image, **TOLERANCE
        )
        for masked in (False, True):
            cells, tokens = (x.cells, x.words.tokens) if masked else (None, b.tokens)
            states, words = model.image_states(b.images, cells), model.text_states(tokens, b.lengths)
            fused = model.fusion(states[0], words[0], b.lengths)
            kind = "masked_" if masked else ""
            torch.testing.assert_close(states[1], out[f"image_{kind}embeddings"], **TOLERANCE)
            torch.testing.assert_close(words[1][x.real], out[f"text_{kind}embeddings"][x.real], **TOLERANCE)
            real = torch.cat([torch.ones(6, 18, dtype=torch.bool), x.real], 1)
            torch.testing.assert_close(fused[real], out[f"multimodal_{kind}embeddings"][real], **TOLERANCE)
        torch.testing.assert_close(model.matching_head(fused[:, 0]), out.itm_logits, **TOLERANCE)
        # the fused CLS and the image's come before its patches: theirs begin at index 2
        assert torch.equal(model.cells_of(fused, fused=True), fused[:, 2:18])
        found = plain.logits(model.image_head, fused[:, 2:18][x.cells])
        torch.testing.assert_close(found, out.mmm_image_logits, **TOLERANCE)
        found = plain.logits(model.text_head, model.text_of(fused, 9)[x.words.masked])
        torch.testing.assert_close(found, out.mmm_text_logits, **TOLERANCE)


@pytest.mark.parametrize("image", [True, False])
def test_a_side_alone_has_their_loss_and_gradients(tmp_path: Path, image: bool) -> None:
    x = both(tmp_path, image_alone=float(image), text_alone=float(not image))
    out, losses = x.theirs(**x.inputs(image, not image)), x.objective(x.batch)
    name = "mim" if image else "mlm"
    torch.testing.assert_close(losses.total, out.loss, **TOLERANCE)
    torch.testing.assert_close(losses.parts[name], out.loss_info[name], **TOLERANCE)
    there = {n for n, loss in out.loss_info.items() if loss is not None}
    assert there == {name}
    tower, their = ("image_tower", "image") if image else ("text_tower", "text")
    names = {
        f"{tower}.blocks.0.attention.q_proj.weight": f"{their}_model.encoder.layer.0.attention.attention.query.weight",
        f"{tower}.blocks.1.mlp.fc_2.bias": f"{their}_model.encoder.layer.1.output.dense.bias",
        f"{tower}.{'norm_post' if image else 'norm_final'}.weight": f"{their}_model.layernorm.weight",
        **({f"{tower}.mask_token": "image_model.embeddings.mask_token"} if image else {}),
    }
    names = {a: f"flava.{b}" for a, b in names.items()} | {
        f"{name}_head.dense.weight": f"{name}_head.transform.dense.weight"
    }
    x.check_gradients(losses.total, out.loss, names)


OF_PAIRS = {
    "image_tower.cls_token": "flava.image_model.embeddings.cls_token",
    "image_tower.mask_token": "flava.image_model.embeddings.mask_token",
    "image_tower.position_embed": "flava.image_model.embeddings.position_embeddings",
    "image_tower.projection.bias": "flava.image_projection.bias",
    "text_tower.norm_pre.weight": "flava.text_model.embeddings.LayerNorm.weight",
    "text_tower.position_embed": "flava.text_model.embeddings.position_embeddings.weight",
    "fusion.cls_token": "flava.multimodal_model.cls_token",
    "fusion.blocks.0.mlp.fc_1.weight": "flava.multimodal_model.encoder.layer.0.intermediate.dense.weight",
    "fusion.image_projection.weight": "flava.image_to_mm_projection.weight",
    "matching_head.pooler.weight": "itm_head.pooler.dense.weight",
    "image_head.decoder.bias": "mmm_image_head.bias",
    "text_head.dense.weight": "mmm_text_head.transform.dense.weight",
    "log_logit_scale": "flava.logit_scale",
}


def test_pairs_have_their_losses_and_gradients(tmp_path: Path) -> None:
    """Of pairs theirs computes neither mim nor mlm, as ours."""
    x = both(tmp_path)
    out, losses = x.theirs(**x.inputs(True, True), itm_labels=torch.ones(6, dtype=torch.int64)), x.objective(x.batch)
    assert out.loss_info.mim is None
    assert out.loss_info.mlm is None
    for name, their_name in OF.items():
        torch.testing.assert_close(losses.parts[name], out.loss_info[their_name], **TOLERANCE)
    torch.testing.assert_close(losses.total, out.loss, **TOLERANCE)
    x.check_gradients(losses.total, out.loss, OF_PAIRS)


def test_wrong_pairs_are_left_out_as_theirs_are(tmp_path: Path) -> None:
    """Theirs are wrong before the model sees them, and their texts stand in the place of the right ones among the
    contrast's candidates; ours are put together of the batch's own pairs, and each text stands once. What is computed
    of the right pairs is the same but for that, and so is the loss of matching."""
    x = both(tmp_path, mismatched=0.4)
    b, chances = x.batch, (0.0, 0.0, 0.4)
    wrong = torch.tensor([kind == "wrong" for kind in plain.kinds(b, *chances)])
    assert 0 < int(wrong.sum()) < 6
    none = [[False] * 6] * 6
    partner = torch.tensor([plain.wrong_partner(i, list(range(6)), none, b) if w else i for i, w in enumerate(wrong)])
    inputs = x.inputs(True, True)
    for name in ("input_ids_masked", "attention_mask", "mlm_labels"):  # the masked pass reads the wrong text
        inputs[name] = inputs[name][partner]
    inputs["input_ids"] = b.tokens[partner]
    out, losses = x.theirs(**inputs, itm_labels=(~wrong).long()), x.objective(b)
    for name in ("mmm_image", "mmm_text", "matching"):
        torch.testing.assert_close(losses.parts[name], out.loss_info[OF[name]], **TOLERANCE)
    assert len(out.contrastive_logits_per_image) == int((~wrong).sum())  # rows are left out
    assert out.contrastive_logits_per_image.shape[1] == 6  # columns stay: the wrong texts are still candidates
    image, text = x.model.encode_image(b.images), x.model.encode_text(b.tokens, b.lengths)
    scale, own = x.model.log_logit_scale.exp(), torch.arange(6)[~wrong]
    cross = torch.nn.functional.cross_entropy
    i2t, t2i = scale * image @ text.T, scale * text @ image.T
    torch.testing.assert_close(losses.parts["contrast"], (cross(i2t[own], own) + cross(t2i[own], own)) / 2, **TOLERANCE)


def test_without_any_right_pair_theirs_judges_all_and_ours_none(tmp_path: Path) -> None:
    x = both(tmp_path, mismatched=1.0)
    out, losses = x.theirs(**x.inputs(True, True), itm_labels=torch.zeros(6, dtype=torch.int64)), x.objective(x.batch)
    assert out.loss_info["mmm_text"] > 0
    assert losses.parts["mmm_text"] == losses.parts["contrast"] == 0
    assert losses.parts["matching"] > 0


def test_theirs_writes_into_the_labels_it_is_given(tmp_path: Path) -> None:
    x = both(tmp_path)
    inputs = x.inputs(True, False)
    before = inputs["mim_labels"].clone()
    x.theirs(**inputs)
    assert torch.equal(inputs["mim_labels"], before.masked_fill(~x.cells, -100))


def test_their_masked_pass_forgets_positions(tmp_path: Path) -> None:
    """Given positions reach the unmasked texts alone: what is masked is read at 0, 1, 2, ... in any case."""
    x = both(tmp_path)
    inputs, moved = x.inputs(False, True), torch.arange(9).roll(1)[None]
    plain_out, out = x.theirs(**inputs), x.theirs(**inputs, position_ids=moved)
    torch.testing.assert_close(out.loss, plain_out.loss)
    assert not torch.allclose(out.text_embeddings, plain_out.text_embeddings)


def test_there_and_back_is_equal_to_the_byte(tmp_path: Path) -> None:
    """But for the poolers, which nothing reads, and for token types, which become part of places."""
    first = save_theirs(tmp_path / "theirs")
    convert("transformers", tmp_path / "theirs", tmp_path / "ours", tokenizer())
    convert_to("transformers", tmp_path / "ours", tmp_path / "back")
    back = transformers.FlavaForPreTraining.from_pretrained(tmp_path / "back")
    places = "flava.text_model.embeddings.position_embeddings.weight"
    mine, yours = back.state_dict(), first.state_dict()
    torch.testing.assert_close(mine[places], yours[places] + yours[TYPES][0])
    assert (mine[TYPES] == 0).all()
    kept = [n for n in yours if "model.pooler" not in n and n not in (places, TYPES)]
    assert_equal_states({n: mine[n] for n in kept}, {n: yours[n] for n in kept})
    again = read("transformers", tmp_path / "back")
    assert again.config == read("transformers", tmp_path / "theirs").config
    assert_equal_states(again.state, read("transformers", tmp_path / "theirs").state)


def flava_config(**values: Any) -> Any:
    return small_flava(context_length=16, **{"codec": None, "codebook_size": CODES, **values})


def test_a_model_of_ours_says_the_same_in_transformers(tmp_path: Path) -> None:
    mine = trained(flava_config())
    write(mine, tmp_path / "out")
    theirs = transformers.FlavaForPreTraining.from_pretrained(tmp_path / "out").eval()
    model, tokens, images = mine.model, torch.randint(3, 300, (2, 6)), pixels(2, 16)
    lengths = torch.tensor([6, 6])
    with torch.no_grad():
        out = theirs(input_ids=tokens, pixel_values=model.normalise(images), return_loss=False)
        logits = model.log_logit_scale.exp() * model.embed_image(images) @ model.embed_text(tokens, lengths).T
        torch.testing.assert_close(logits, out.contrastive_logits_per_image, **TOLERANCE)
    back = read("transformers", tmp_path / "out")
    assert back.config.mask_id == model.mask_id == 300
    assert_equal_states(back.state, dict(model.state_dict()))


@pytest.mark.parametrize(
    "values,message",
    [
        ({"fusion": BlockConfig(width=24, depth=1, heads=2, norm_eps=1e-12)}, "width must be 24, got 16"),
        ({"image": small_flava().image.replace(mask_token=False)}, "mask_token must be True"),
        ({"text": small_flava().text.replace(norm_pre=False)}, "norm_pre must be True"),
    ],
)
def test_what_flava_has_no_place_for_is_said(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        write(trained(flava_config(**values)), tmp_path / "out")


@pytest.mark.parametrize(
    "part,values,message",
    [
        ("image_config", {"mask_token": False}, "no mask token"),
        ("text_config", {"qkv_bias": False}, "without a bias"),
        ("multimodal_config", {"layer_norm_eps": 1e-5}, "encoders that differ in layer_norm_eps"),
    ],
)
def test_what_our_towers_have_not_is_said(tmp_path: Path, part: str, values: dict[str, Any], message: str) -> None:
    save_theirs(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, part: {**config[part], **values}}))
    with pytest.raises(CheckpointError, match=message):
        read("transformers", tmp_path)


def test_the_tokenizers_mask_token_is_the_models(tmp_path: Path) -> None:
    save_theirs(tmp_path)
    assert read("transformers", tmp_path).config.mask_id == tokenizer().vocab_size - 1
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "mask_token_id": 103}))
    assert read("transformers", tmp_path).config.mask_id == 103
