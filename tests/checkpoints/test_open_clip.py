"""Tests against open_clip: parity of ViT, ResNet and SigLIP from random weights, there and back, ours in its hands."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from diptych.checkpoints.convert import convert, convert_to, read
from diptych.checkpoints.native import load, save_pretrained
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.core.errors import CheckpointError
from diptych.core.image_format import ImageFormat
from diptych.data.tokenize import Tokenizer
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.objectives.sigmoid import SigmoidConfig
from tests.checkpoints.tiny import (
    TEXTS,
    TOLERANCE,
    assert_equal_states,
    check_parity,
    clip_config,
    our_logits,
    ours,
    pixels,
    randomise,
    siglip_config,
    tokenizer,
    trained,
)

open_clip = pytest.importorskip("open_clip")
from open_clip.loss import ClipLoss, SigLipLoss  # noqa: E402

RESNET = ModifiedResNetConfig(stem_width=8, depths=(1, 2, 1, 1))


def text_cfg(words: Tokenizer, **values: Any) -> dict[str, Any]:
    size = {"context_length": 16, "vocab_size": words.vocab_size, "width": 64, "heads": 2, "layers": 2}
    return {**size, "hf_tokenizer_name": "x", "pool_type": "eos", "eos_id": words.end_id, **values}


VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
KINDS: dict[str, dict[str, Any]] = {
    "vit": {"vision_cfg": VIT},
    "quick": {"quick_gelu": True, "vision_cfg": {**VIT, "mlp_ratio": 3.3}, "text": {"mlp_ratio": 2.71}},
    "tanh": {
        "vision_cfg": {**VIT, "no_ln_pre": True, "norm_kwargs": {"eps": 1e-3}, "ls_init_value": 0.1},
        "text": {"act_kwargs": {"approximate": "tanh"}, "proj_bias": True, "ls_init_value": 0.1},
        "init_logit_bias": -10,
    },
    "resnet": {"vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None}},
}


def save_theirs(path: Path, kind: str, name: str = "open_clip_model.safetensors") -> nn.Module:
    """A random open_clip model as a folder, with our tokenizer."""
    settings = dict(KINDS[kind])
    settings |= {"embed_dim": 24, "text_cfg": text_cfg(tokenizer(), **settings.pop("text", {}))}
    model = open_clip.CLIP(**settings).eval()
    randomise(model)
    path.mkdir(exist_ok=True)
    if name.endswith(".safetensors"):
        save_file(model.state_dict(), path / name)
    else:
        torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path / name)
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": {}}))
    save_for_others(path, tokenizer())
    return model


def logits_of(model: nn.Module, images: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    images, texts, scale, *bias = model(images, tokens)
    logits = scale * images @ texts.T
    return images, texts, logits + bias[0] if bias else logits


@pytest.mark.parametrize("kind", KINDS)
def test_features_logits_loss_and_gradients_equal_theirs(tmp_path: Path, kind: str) -> None:
    theirs = save_theirs(tmp_path, kind)
    model = ours("open_clip", tmp_path)
    images = pixels(4, model.config.image_format.resolution)
    tokens, lengths = tokenizer().batch(TEXTS)
    wide = torch.nn.functional.pad(tokens, (0, 16 - tokens.shape[1]))  # open_clip takes nothing shorter
    out = logits_of(theirs, model.normalise(images), wide)
    loss = ClipLoss()(out[0], out[1], theirs.logit_scale.exp())  # a bias does not change a softmax
    visual, block = theirs.visual, theirs.transformer.resblocks[0]
    gradients = {
        "log_logit_scale": (theirs.logit_scale, lambda g: g),
        "text_tower.blocks.0.attention.q_proj.weight": (block.attn.in_proj_weight, lambda g: g[:64]),
        "text_tower.token_embed.weight": (theirs.token_embedding.weight, lambda g: g),
    }
    if kind == "resnet":
        gradients |= {
            "image_tower.conv_1.weight": (visual.conv1.weight, lambda g: g),
            "image_tower.layer_2.0.shortcut_norm.weight": (visual.layer2[0].downsample[2].weight, lambda g: g),
            "image_tower.attention_pool.position_embed": (visual.attnpool.positional_embedding, lambda g: g),
        }
    else:
        gradients |= {
            "image_tower.cls_token": (visual.class_embedding, lambda g: g),
            "image_tower.projection.weight": (visual.proj, lambda g: g.T),
        }
    check_parity(model, (tokens, lengths), images, out, loss, gradients)


def test_a_resnet_in_training_has_their_batch_statistics(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path, "resnet").train()
    model = ours("open_clip", tmp_path).train()
    images = pixels(4, 64)
    expected, found = theirs.visual(model.normalise(images)), model.image_tower(model.normalise(images))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)  # batch norm of 4 images divides by small spreads
    state, other = model.state_dict(), theirs.state_dict()
    torch.testing.assert_close(state["image_tower.norm_2.running_var"], other["visual.bn2.running_var"], **TOLERANCE)
    assert state["image_tower.norm_2.num_batches_tracked"] == other["visual.bn2.num_batches_tracked"] == 8


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_equal_to_the_byte(tmp_path: Path, kind: str) -> None:
    theirs = save_theirs(tmp_path / "theirs", kind, "open_clip_pytorch_model.bin")
    convert("open_clip", tmp_path / "theirs", tmp_path / "ours")
    convert_to("open_clip", tmp_path / "ours", tmp_path / "back")
    assert_equal_states(load_file(tmp_path / "back/open_clip_model.safetensors"), dict(theirs.state_dict()))
    assert read("open_clip", tmp_path / "back").config == read("open_clip", tmp_path / "theirs").config


@pytest.mark.parametrize("kind", ["vit", "resnet", "pad"])
def test_a_model_of_ours_gives_the_same_embeddings_in_open_clip(tmp_path: Path, kind: str) -> None:
    config = clip_config()
    if kind == "resnet":
        config = clip_config(image=RESNET, image_format=ImageFormat(resolution=64, resize="squash"))
    if kind == "pad":
        config = config.replace(image_format=ImageFormat(resolution=32, resize="pad", interpolation="bilinear"))
    mine = trained(config)
    save_pretrained(tmp_path / "run", mine.model, mine.tokenizer)
    convert_to("open_clip", tmp_path / "run", tmp_path / "out")
    name = f"local-dir:{tmp_path / 'out'}"
    theirs, preprocess = open_clip.create_model_from_pretrained(name)
    theirs.eval()
    vocabulary = open_clip.get_tokenizer(name)
    texts = [*TEXTS, "  Spaces\tand  CAPITALS ", "caf\u00c3\u00a9 &amp; more", "", "one two " * 20]
    images = pixels(3, config.image_format.resolution)
    with torch.no_grad():
        text = theirs.encode_text(vocabulary(texts), normalize=True)
        image = theirs.encode_image(mine.model.normalise(images), normalize=True)
    torch.testing.assert_close(text, mine.embed_text(texts), **TOLERANCE)
    torch.testing.assert_close(image, mine.model.embed_image(images), **TOLERANCE)
    from PIL import Image

    picture = torch.randint(0, 256, (3, 80, 60), dtype=torch.uint8)
    prepared = preprocess(Image.fromarray(picture.permute(1, 2, 0).numpy()))
    expected = mine.model.normalise(mine.pixels(picture)[None])[0]
    assert (prepared - expected).abs().mean() < 0.05  # PIL rounds between its two passes; we do not
    back = load(convert("open_clip", tmp_path / "out", tmp_path / "back"))
    assert_equal_states(back.model.state_dict(), mine.model.state_dict())
    assert back.model.config == mine.model.config
    assert torch.equal(back.embed_text(texts), mine.embed_text(texts))


SIGLIP = "vit_tiny_patch8_siglip_32"


@pytest.fixture(scope="module")
def timm_tower() -> str:
    """A SigLIP tower of timm's, small enough for a test."""
    import timm
    from timm.models.vision_transformer import VisionTransformer

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        size = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1}
        kwargs = {k: v for k, v in kwargs.items() if k not in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")}
        trunk = VisionTransformer(**{**size, "class_token": False, "global_pool": "map", **kwargs})
        trunk.default_cfg = {}
        return trunk

    build.__name__, build.__module__ = SIGLIP, "timm.models.vision_transformer"
    if SIGLIP not in timm.list_models():
        import timm.models.vision_transformer as module

        module.__dict__[SIGLIP] = build
        timm.models.register_model(build)
    return SIGLIP


@pytest.mark.parametrize("projection", ["none", "linear"])
def test_siglip_with_a_tower_of_timm_equals_theirs(tmp_path: Path, timm_tower: str, projection: str) -> None:
    words = tokenizer().replaced(pad_to="context")
    settings = {
        "embed_dim": 64 if projection == "none" else 24,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 32, "timm_model_name": timm_tower, "timm_pool": "map", "timm_proj": projection},
        "text_cfg": text_cfg(
            words,
            no_causal_mask=True,
            proj_bias=True,
            pool_type="last",
            norm_kwargs={"eps": 1e-6},
            tokenizer_kwargs={"clean": "lower"},
        ),
    }
    theirs = open_clip.CustomTextCLIP(**settings).eval()
    randomise(theirs)
    save_file(theirs.state_dict(), tmp_path / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": settings | {"custom_text": True}, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_for_others(tmp_path, words, ids_only=True)
    model = ours("open_clip", tmp_path)
    assert model.config.image_format == siglip_config().image_format
    assert model.config.image.activation == model.config.text.activation == "gelu"
    images = pixels(4, 32)
    tokens, lengths = words.batch(TEXTS)
    out = logits_of(theirs, model.normalise(images), tokens)
    loss = SigLipLoss()(out[0], out[1], theirs.logit_scale.exp(), theirs.logit_bias)
    trunk = theirs.visual.trunk
    check_parity(
        model,
        (tokens, lengths),
        images,
        out,
        loss,
        {
            "logit_bias": (theirs.logit_bias, lambda g: g),
            "image_tower.map_pool.probe": (trunk.attn_pool.latent, lambda g: g[0]),
            "image_tower.map_pool.attention.v_proj.weight": (trunk.attn_pool.kv.weight, lambda g: g[64:]),
            "image_tower.position_embed": (trunk.pos_embed, lambda g: g[0]),
            "text_tower.projection.bias": (theirs.text.text_projection.bias, lambda g: g),
        },
        objective=SigmoidConfig(duplicates="ignore"),
    )


def test_open_clip_runs_siglip_with_another_gelu_than_it_was_trained_with() -> None:
    """A known difference of the oracle: timm's base towers use the exact GELU; Google and transformers use tanh's.

    So one SigLIP converted by way of open_clip and by way of transformers differs a little; each equals its library.
    """
    exact = trained(siglip_config(image=siglip_config().image.replace(activation="gelu")))
    tanh = trained(siglip_config())
    images = pixels(2, 32)
    apart = (exact.model.embed_image(images) - tanh.model.embed_image(images)).abs().max()
    assert 1e-6 < apart < 1e-2


def test_a_bare_weight_file_says_its_activation_by_name_or_is_refused(tmp_path: Path) -> None:
    theirs = open_clip.CLIP(
        24, {**VIT, "head_width": 64}, {"context_length": 16, "vocab_size": 300, "width": 64, "heads": 1, "layers": 2}
    )
    randomise(theirs)
    for name, activation in (("my-ViT-B-32-quickgelu", "quick_gelu"), ("ViT-B-32-epoch3", "gelu")):
        torch.save({"state_dict": theirs.state_dict()}, tmp_path / f"{name}.pt")
        found = read("open_clip", tmp_path / f"{name}.pt")
        assert found.config.image.activation == found.config.text.activation == activation
        assert found.tokenizer is None
    with pytest.raises(CheckpointError, match="must bring its tokenizer"):
        convert("open_clip", tmp_path / "ViT-B-32-epoch3.pt", tmp_path / "out")
    torch.save(theirs.state_dict(), tmp_path / "epoch_32.pt")
    with pytest.raises(CheckpointError, match="which GELU"):
        read("open_clip", tmp_path / "epoch_32.pt")


def test_the_quick_gelu_flag_decides_what_is_computed(tmp_path: Path) -> None:
    """The flag that a fine-tuned OpenAI model loses in open_clip (its issue 771): equal weights, another model."""
    save_theirs(tmp_path, "quick")
    tokens, lengths = tokenizer().batch(TEXTS)
    right = our_logits(ours("open_clip", tmp_path), pixels(4, 32), tokens, lengths)[2]
    text = (tmp_path / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(text.replace('"quick_gelu": true', '"quick_gelu": false'))
    wrong = our_logits(ours("open_clip", tmp_path), pixels(4, 32), tokens, lengths)[2]
    assert (right - wrong).abs().max() > 1e-3


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"vision_cfg": {**VIT, "attentional_pool": True}}, "vision_cfg.attentional_pool = True"),
        ({"vision_cfg": {**VIT, "pool_type": "avg"}}, "pool_type 'avg'"),
        ({"vision_cfg": {"timm_model_name": "convnext_base", "image_size": 32}}, "timm's image tower 'convnext_base'"),
        ({"text": {"hf_model_name": "roberta-base"}}, "text_cfg.hf_model_name = 'roberta-base'"),
        ({"text": {"no_causal_mask": True}}, "without a causal mask with pool_type 'eos'"),
        ({"text": {"eos_id": 5}}, "must end texts with the token that the model pools at, 5"),
    ],
)
def test_what_our_towers_cannot_compute_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_theirs(tmp_path, "vit")
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= changes.pop("text", {}) if "text" in changes else {}
    config["model_cfg"] |= {k: v for k, v in changes.items() if k != "text"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        read("open_clip", tmp_path)
