"""CLIP as Hugging Face transformers keeps it: a folder of config.json, weights, tokenizer and preprocessing.

Two traps of its text tower travel with care. It pools at the first `eos_token_id` of a row, where ours pools at the
last real token: equal, because our rows end with that token. And a config whose `eos_token_id` is 2 makes it pool at
the highest id instead (a bug kept for old files): such files are read as what they compute, and on writing, an end
token that happens to have id 2 changes places with the last id of the vocabulary.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.checkpoints.foreign import (
    PLAIN_BLOCK,
    End,
    Foreign,
    check_end,
    demand,
    demand_kind,
    read_object,
    shapes_of,
    square,
)
from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.checkpoints.tokenizer_export import save_for_others, swap_ids
from diptych.checkpoints.transformers_names import (
    FORMAT,
    IGNORED,
    block_section,
    block_settings,
    is_model,
    read_folder_weights,
    read_image_format,
    read_tokenizer,
    section,
    tower_rules,
    write_folder,
)
from diptych.core.errors import CheckpointError
from diptych.core.files import new_directory
from diptych.core.image_format import ImageFormat
from diptych.models.pretrained import Pretrained
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig

__all__ = ["FORMAT", "read", "recognises", "write"]

LEGACY_EOS = 2
_BLOCK = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
TEXT_DEFAULTS: dict[str, Any] = {
    **_BLOCK,
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
VISION_DEFAULTS: dict[str, Any] = {
    **_BLOCK,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
}
"""What transformers assumes where config.json is silent; its own files leave most out."""


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of model_type "clip"."""
    return is_model(path, "clip")


def read(path: Path) -> Foreign:
    """The model, its tokenizer (None if the folder has none) and its preprocessing, in our terms."""
    theirs = read_object(path / "config.json")
    text = section(theirs, "text_config", TEXT_DEFAULTS)
    vision = section(theirs, "vision_config", VISION_DEFAULTS)
    resolution = square(vision["image_size"], "image_size")
    tokenizer = read_tokenizer(path, text["max_position_embeddings"])
    swapped = (theirs.get("diptych") or {}).get("swapped_ids")
    end: End = "highest" if text["eos_token_id"] == LEGACY_EOS else text["eos_token_id"]
    if tokenizer is not None:
        check_end(tokenizer, end)
    config = TwoTowerConfig(
        image=VisionTransformerConfig(
            **block_settings(vision), patch_size=square(vision["patch_size"], "patch_size"), norm_pre=True
        ),
        text=TextTransformerConfig(**block_settings(text), pad_id=0 if tokenizer is None else tokenizer.pad_id),
        embed_dim=theirs.get("projection_dim", 512),
        context_length=text["max_position_embeddings"],
        image_format=read_image_format(path, resolution, ImageFormat()),
    )
    state = to_ours(_rules(config), read_folder_weights(path), shapes_of(config, text["vocab_size"]), IGNORED)
    if swapped:  # by `write`: the two tokens go back to their places
        state, end = _swap_rows(state, *swapped), LEGACY_EOS
        if tokenizer is not None:
            tokenizer = swap_ids(tokenizer, *swapped)
            config = config.replace(text=config.text.replace(pad_id=tokenizer.pad_id))
    return Foreign(config, state, tokenizer, end)


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that `CLIPModel`, `CLIPProcessor` and `AutoTokenizer` load. Refuses what CLIP has no place for."""
    config = _check_writable(pretrained.model.config)
    image, text = config.image, config.text
    assert isinstance(image, VisionTransformerConfig)
    assert isinstance(text, TextTransformerConfig)
    tokenizer, state = pretrained.tokenizer, pretrained.model.state_dict()
    if tokenizer.end_id is None:
        raise CheckpointError("transformers' CLIP must have a tokenizer with an end token to pool at; it has none.")
    swapped = (LEGACY_EOS, tokenizer.vocab_size - 1) if tokenizer.end_id == LEGACY_EOS else None
    if swapped:
        tokenizer, state = swap_ids(tokenizer, *swapped), _swap_rows(state, *swapped)
    settings = {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.init_logit_scale,
        "text_config": {
            "model_type": "clip_text_model",
            **block_section(text),
            "projection_dim": config.embed_dim,
            "vocab_size": pretrained.model.vocab_size,
            "max_position_embeddings": config.context_length,
            "bos_token_id": tokenizer.start_id,
            "eos_token_id": tokenizer.end_id,
            "pad_token_id": tokenizer.pad_id,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **block_section(image),
            "projection_dim": config.embed_dim,
            "image_size": config.image_format.resolution,
            "patch_size": image.patch_size,
            "num_channels": 3,
        },
        **({"diptych": {"swapped_ids": list(swapped)}} if swapped else {}),
    }
    with new_directory(out) as folder:
        write_folder(folder, to_theirs(_rules(config), state), settings, config.image_format, "CLIP")
        save_for_others(folder, tokenizer)


def _rules(config: TwoTowerConfig) -> list[Rule]:
    image, text = config.image, config.text
    assert isinstance(image, VisionTransformerConfig)
    assert isinstance(text, TextTransformerConfig)
    return [
        *tower_rules((image.depth, text.depth)),
        Rule(("image_tower.cls_token",), "vision_model.embeddings.class_embedding"),
        *same([("image_tower.norm_pre", "vision_model.pre_layrnorm")]),  # their spelling
        *same([("image_tower.projection", "visual_projection")], ("weight",)),
        *same([("text_tower.projection", "text_projection")], ("weight",)),
        Rule(("log_logit_scale",), "logit_scale", shape=()),
    ]


def _check_writable(config: object) -> TwoTowerConfig:
    who = "transformers' CLIP"
    demand_kind(config, (TwoTowerConfig,), who, "a dual encoder")
    assert isinstance(config, TwoTowerConfig)
    demand_kind(config.image, (VisionTransformerConfig,), who, "an image tower")
    demand_kind(config.text, (TextTransformerConfig,), who, "a text tower")
    block = {**PLAIN_BLOCK, "layer_scale": 0.0, "projection": "linear"}
    activations = ("quick_gelu", "gelu", "gelu_tanh", "relu")
    demand(config.image, {**block, "activation": activations}, who)
    demand(config.text, {**block, "activation": activations}, who)
    demand(config.image, {"pooling": "cls", "norm_pre": True, "patch_bias": False}, who)
    demand(config.text, {"attention": "causal", "pooling": "eos"}, who)
    demand(config, {"init_logit_bias": None}, who)
    return config


def _swap_rows(state: dict[str, Tensor], a: int, b: int) -> dict[str, Tensor]:
    name = "text_tower.token_embed.weight"
    order = torch.arange(state[name].shape[0])
    order[a], order[b] = b, a
    return {**state, name: state[name].detach().cpu()[order]}
