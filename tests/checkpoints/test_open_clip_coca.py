"""Tests against open_clip's CoCa: features, logits, loss and gradients from random weights, there and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from diptych.checkpoints.convert import assemble, convert, convert_to, read
from diptych.checkpoints.native import build, load, save_pretrained
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.core.batch import Batch
from diptych.core.errors import CheckpointError
from diptych.core.image_format import ImageFormat
from diptych.models.coca import CoCa, CoCaConfig
from diptych.models.pretrained import Pretrained
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.objectives.coca import ContrastiveCaptioningConfig
from tests.checkpoints.tiny import TEXTS, TOLERANCE, assert_equal_states, pixels, randomise, tokenizer

open_clip = pytest.importorskip("open_clip")

VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "output_tokens": True}
POOLER = {"attentional_pool": True, "attn_pooler_queries": 6, "attn_pooler_heads": 4}
KINDS: dict[str, dict[str, Any]] = {
    "legacy": {},
    "correct": {"text": {"correct_cls_mask": True}},
    "packed": {"vision": {"width": 32}, "quick_gelu": True, "text": {"mlp_ratio": 2.5}},
    "scaled": {"vision": {"ls_init_value": 0.1}, "text": {"ls_init_value": 0.1}, "decoder": {"ls_init_value": 0.1}},
}
CONTEXT = 20


def settings_of(kind: str) -> dict[str, Any]:
    given = dict(KINDS[kind])
    words = tokenizer(CONTEXT)
    size = {"context_length": CONTEXT, "vocab_size": words.vocab_size, "width": 32, "heads": 2, "layers": 2}
    text = {**size, "embed_cls": True, "output_tokens": True, "hf_tokenizer_name": "x", "pad_id": words.pad_id}
    return {
        "embed_dim": 32,
        "quick_gelu": given.get("quick_gelu", False),
        "vision_cfg": {**VISION, **POOLER, **given.get("vision", {})},
        "text_cfg": {**text, **given.get("text", {})},
        "multimodal_cfg": {**size, "heads": 4, **given.get("decoder", {})},
    }


def save_theirs(path: Path, kind: str) -> nn.Module:
    """A random CoCa of open_clip as a folder, with our tokenizer."""
    settings = settings_of(kind)
    known = {k: v for k, v in settings["text_cfg"].items() if k != "correct_cls_mask"}
    model = open_clip.CoCa(**settings | {"text_cfg": known}, pad_id=known["pad_id"]).eval()
    model.text.correct_cls_mask = settings["text_cfg"].get("correct_cls_mask", False)  # 3.3.0 cannot be told otherwise
    randomise(model)
    path.mkdir(exist_ok=True)
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": {}}))
    save_for_others(path, tokenizer(CONTEXT))
    return model


def ours(path: Path) -> CoCa:
    found = read("open_clip", path)
    assert found.tokenizer is not None
    model = assemble(found, found.tokenizer).model
    assert isinstance(model, CoCa)
    return model.eval()


def batch_of(texts: list[str]) -> tuple[Batch, torch.Tensor]:
    """Our batch, and their tokens: padded to the whole context."""
    tokens, lengths = tokenizer(CONTEXT).batch(texts)
    whole = nn.functional.pad(tokens, (0, CONTEXT - tokens.shape[1]), value=tokenizer().pad_id)
    images = pixels(len(texts), 32)
    return Batch(images=images, image_record=torch.arange(len(texts)), tokens=tokens, lengths=lengths), whole


@pytest.mark.parametrize("kind", KINDS)
def test_features_logits_loss_and_gradients_are_theirs(kind, tmp_path):
    theirs, (batch, whole) = save_theirs(tmp_path / "theirs", kind), batch_of(TEXTS)
    model = ours(tmp_path / "theirs")
    out = theirs(model.normalise(batch.images), whole)
    both = model.encode_pairs(batch)
    torch.testing.assert_close(both.image, out["image_features"], **TOLERANCE)
    torch.testing.assert_close(both.text, out["text_features"], **TOLERANCE)
    logits = torch.cat([row[: n - 1] for row, n in zip(out["logits"], batch.lengths.tolist(), strict=True)])
    torch.testing.assert_close(model.logits(both.said.hidden), logits, **TOLERANCE)

    loss_of = open_clip.CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0, pad_id=tokenizer().pad_id)
    contrastive, caption = loss_of(
        out["image_features"], out["text_features"], out["logits"], out["labels"], out["logit_scale"]
    )
    losses = ContrastiveCaptioningConfig(duplicates="ignore").build(model)(batch)
    torch.testing.assert_close(losses.total, contrastive + caption, **TOLERANCE)
    torch.testing.assert_close(losses.parts["nll"], caption.detach() / 2, **TOLERANCE)

    losses.total.backward()
    (contrastive + caption).backward()
    mine, yours = dict(model.named_parameters()), dict(theirs.named_parameters())
    for name, their_name, transposed in (
        ("pooler.query", "visual.attn_pool.query", False),
        ("pooler.norm_post.weight", "visual.ln_post.weight", False),
        ("text_half.cls_token", "text.cls_emb", False),
        ("text_half.token_embed.weight", "text.token_embedding.weight", False),
        ("text_half.position_embed", "text.positional_embedding", False),
        ("image_half.head.weight", "text_decoder.text_projection", True),
        ("image_half.cross_blocks.1.norm_context.bias", "text_decoder.cross_attn.1.ln_1_kv.bias", False),
        ("image_tower.cls_token", "visual.class_embedding", False),
        ("log_logit_scale", "logit_scale", False),
    ):
        a, b = mine[name].grad, yours[their_name].grad
        b = b.T if transposed else b
        assert a.abs().max() > 1e-6, name
        torch.testing.assert_close(
            a, b, rtol=1e-3, atol=1e-5 * float(a.abs().max()) + 1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_theirs_hides_the_cls_from_itself_and_shows_it_padding(tmp_path):
    """Under the mask that their weights were trained with, what stands on the first padding place moves a text's
    vector. With ours, closed form: a CLS that sees real tokens and itself alone, so the text by itself is the same."""
    legacy, correct = (save_theirs(tmp_path / kind, kind) for kind in ("legacy", "correct"))
    correct.load_state_dict(legacy.state_dict())
    batch, whole = batch_of(["two dogs"])
    length = int(batch.lengths)
    assert length < CONTEXT
    shown = []
    with torch.no_grad():
        for model in (legacy, correct):
            before = model.encode_text(whole)
            padding = model.text.token_embedding.weight[tokenizer().pad_id]
            kept = padding.clone()
            padding.copy_(kept.roll(1))
            shown.append(not torch.allclose(model.encode_text(whole), before, atol=1e-4))
            padding.copy_(kept)
        mine = ours(tmp_path / "correct")
        mine.load_state_dict(ours(tmp_path / "legacy").state_dict())
        alone = mine.text_half(batch.tokens[:, :length], batch.lengths)[1]
        x = mine.text_half.token_embed(batch.tokens[:, :length]) + mine.text_half.position_embed[:length]
        x = torch.cat([x, (mine.text_half.cls_token + mine.text_half.position_embed[-1])[None, None]], 1)
        for block in mine.text_half.blocks:
            y = block.norm_1(x)
            q, k, v = (p(y).unflatten(-1, (2, 16)).transpose(1, 2) for p in projections(block.attention))
            weights = (q @ k.transpose(-1, -2) / 4).masked_fill(
                torch.ones(length + 1, length + 1).triu(1) > 0, -torch.inf
            )
            x = x + block.attention.out_proj((weights.softmax(-1) @ v).transpose(1, 2).flatten(2))
            x = x + block.mlp(block.norm_2(x))
    assert shown == [True, False]
    torch.testing.assert_close(alone, x[:, -1], **TOLERANCE)
    with torch.no_grad():
        torch.testing.assert_close(
            mine.encode_text(batch.tokens, batch.lengths), correct.encode_text(whole), **TOLERANCE
        )


def projections(attention: Any) -> tuple[nn.Module, ...]:
    return attention.q_proj, attention.k_proj, attention.v_proj


@pytest.mark.parametrize("kind", ["legacy", "packed", "scaled"])
def test_there_and_back_is_equal_to_the_byte(kind, tmp_path):
    save_theirs(tmp_path / "theirs", kind)
    convert("open_clip", tmp_path / "theirs", tmp_path / "ours")
    convert_to("open_clip", tmp_path / "ours", tmp_path / "again")
    name = "open_clip_model.safetensors"
    assert_equal_states(load_file(tmp_path / "theirs" / name), load_file(tmp_path / "again" / name))
    convert("open_clip", tmp_path / "again", tmp_path / "ours again")
    first, second = load(tmp_path / "ours"), load(tmp_path / "ours again")
    assert first.fingerprint == second.fingerprint
    assert first.model.config == second.model.config


def our_config(**changes: Any) -> CoCaConfig:
    plain = {
        "image_format": ImageFormat(resolution=32),
        "image": VisionTransformerConfig(width=64, depth=1, heads=1, patch_size=8),
        "embed_dim": 32,
        "text": BlockConfig(width=32, depth=1, heads=2),
        "decoder": BlockConfig(width=32, depth=1, heads=2),
        "pooling": "legacy",
        "cls_mask": "legacy",
        "queries": 4,
        "pooler_heads": 2,
        "context_length": CONTEXT,
    }
    return CoCaConfig(**plain | changes)


def test_ours_is_a_model_in_their_hands(tmp_path):
    words = tokenizer(CONTEXT)
    model = build(our_config(), words.vocab_size)
    randomise(model)
    save_pretrained(tmp_path / "run", model, words)
    convert_to("open_clip", tmp_path / "run", tmp_path / "theirs")
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'theirs'}").eval()
    batch, whole = batch_of(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(
            theirs.encode_image(model.normalise(batch.images)), model.encode_image(batch.images), **TOLERANCE
        )
        torch.testing.assert_close(
            theirs.encode_text(whole), model.encode_text(batch.tokens, batch.lengths), **TOLERANCE
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pooling": "cascade"}, "pooling must be 'legacy'"),
        ({"cls_mask": "correct"}, "cls_mask must be 'legacy'"),
        ({"embed_dim": 16}, "embed_dim must be 32"),
        ({"decoder": BlockConfig(width=32, depth=1, heads=2, mlp_ratio=2.0)}, "mlp_ratio must be 4.0"),
        ({"decoder": BlockConfig(width=32, depth=1, heads=2, activation="quick_gelu")}, "activation must be 'gelu'"),
    ],
)
def test_what_they_have_no_place_for_is_refused(changes, words, tmp_path):
    vocabulary = tokenizer(CONTEXT)
    pretrained = Pretrained(build(our_config(**changes), vocabulary.vocab_size), vocabulary)
    save_pretrained(tmp_path / "run", pretrained.model, vocabulary)
    with pytest.raises(CheckpointError, match=words):
        convert_to("open_clip", tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("vision_cfg", {"attentional_pool": "cascade"}, "attentional_pool 'cascade'"),
        ("text_cfg", {"embed_cls": False}, "without embed_cls"),
        ("text_cfg", {"proj_bias": True}, "text projection is 'linear_bias'"),
    ],
)
def test_what_we_have_no_place_for_is_refused(part, changes, words, tmp_path):
    save_theirs(tmp_path / "theirs", "legacy")
    path = tmp_path / "theirs" / "open_clip_config.json"
    settings = json.loads(path.read_text())
    settings["model_cfg"][part] |= changes
    path.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=words):
        read("open_clip", tmp_path / "theirs")
