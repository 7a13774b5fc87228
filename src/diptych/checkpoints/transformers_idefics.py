"""Idefics (Laurençon et al., 2023, arXiv:2306.16527), the open Flamingo, as Hugging Face transformers keeps it.

Its texts hold a token "<image>" wherever an image stands, between two "<fake_token_around_image>"; to us these are text
like any other, prompts have them, and `image_position` is the place of "<image>". The tokens that were added to LLaMA's
vocabulary are kept in matrices of their own there, and behind the others here: a model that we write has all in one.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.checkpoints.foreign import PLAIN_BLOCK, Foreign, demand, demand_kind, read_object, shapes_of, square
from diptych.checkpoints.foreign import unsupported as not_supported
from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.checkpoints.transformers_llama import check_llama, language_rules, language_section, language_settings
from diptych.checkpoints.transformers_names import (
    FORMAT,
    IGNORED,
    block_section,
    block_settings,
    clip_image_rules,
    is_model,
    read_folder_weights,
    read_image_format,
    read_tokenizer,
    section,
    write_folder,
)
from diptych.core.errors import CheckpointError
from diptych.core.files import new_directory
from diptych.core.image_format import ImageFormat
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.perceiver import PerceiverConfig
from diptych.models.flamingo import FlamingoConfig, crossed
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.pretrained import Pretrained
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.perceiver import GatedCrossAttentionConfig

__all__ = ["FORMAT", "read", "recognises", "write"]

WHO = "transformers' Idefics"
ADDED = {
    "model.embed_tokens.weight": "model.embed_tokens.additional_embedding.weight",
    "lm_head.weight": "lm_head.additional_fc.weight",
}
"""Which matrix of added tokens belongs behind which."""
DEFAULTS: dict[str, Any] = {
    "alpha_type": "float",
    "cross_layer_interval": 1,
    "qk_layer_norms": False,
    "use_resampler": False,
    "max_position_embeddings": 2048,
}
VISION_DEFAULTS: dict[str, Any] = {
    "embed_dim": 768,
    "image_size": 224,
    "intermediate_size": 5120,
    "patch_size": 14,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
PERCEIVER_DEFAULTS: dict[str, Any] = {
    "resampler_n_latents": 64,
    "resampler_depth": 6,
    "resampler_n_heads": 16,
    "resampler_head_dim": 96,
    "qk_layer_norms_perceiver": False,
}
"""What transformers assumes where config.json is silent."""


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of model_type "idefics"."""
    return is_model(path, "idefics")


def read(path: Path) -> Foreign:
    """The model, its tokenizer (None if the folder has none) and its preprocessing, in our terms."""
    theirs = {**DEFAULTS, **read_object(path / "config.json")}
    vision = section(theirs, "vision_config", VISION_DEFAULTS)
    if not theirs["use_resampler"]:
        raise not_supported("transformers", "no resampler (use_resampler false)")
    # Idefics' rotary positions and norms are LLaMA's
    language = language_settings({**theirs, "model_type": "llama", "attention_bias": False, "mlp_bias": False})
    side = square(vision["image_size"], "image_size")
    config = FlamingoConfig(
        image=VisionTransformerConfig(
            **block_settings({**vision, "hidden_size": vision["embed_dim"]}),
            patch_size=square(vision["patch_size"], "patch_size"),
            norm_pre=True,
            projection="none",
        ),
        embed_dim=vision["embed_dim"],
        reading=ImageReadingConfig(norm=False),
        connector=_connector(theirs),
        language=language,
        cross=_cross(theirs, language),
        cross_every=theirs["cross_layer_interval"],
        cross_at="first",
        context_length=theirs["max_position_embeddings"],
        image_format=read_image_format(path, side, ImageFormat(resize="squash")),
    )
    weights = _one_vocabulary(read_folder_weights(path))
    if language.tied:
        weights.pop("lm_head.weight", None)
    vocab_size = weights["model.embed_tokens.weight"].shape[0]
    state = to_ours(_rules(config), weights, shapes_of(config, vocab_size), rf"{IGNORED}|rotary_emb\.inv_freq$")
    return Foreign(config, state, read_tokenizer(path, config.context_length))


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that `IdeficsForVisionText2Text` loads. Refuses what Idefics has no place for."""
    config, tokenizer = _check_writable(pretrained.model.config), pretrained.tokenizer
    image, connector, language = _parts(config)
    settings = {
        **language_section(language, config.context_length, pretrained.model.vocab_size),
        "model_type": "idefics",
        "architectures": ["IdeficsForVisionText2Text"],
        "additional_vocab_size": 0,
        "alpha_type": "float" if config.cross.gate == "scalar" else "vector",
        "cross_layer_interval": config.cross_every,
        "qk_layer_norms": config.cross.qk_norm,
        "use_resampler": True,
        "bos_token_id": tokenizer.start_id,
        "eos_token_id": tokenizer.end_id,
        "pad_token_id": tokenizer.pad_id,
        "perceiver_config": {
            "use_resampler": True,
            "resampler_n_latents": connector.latents,
            "resampler_depth": connector.depth,
            "resampler_n_heads": connector.heads,
            "resampler_head_dim": connector.head_width,
            "qk_layer_norms_perceiver": connector.qk_norm,
        },
        "vision_config": {
            **block_section(image),
            "embed_dim": image.width,
            "image_size": config.image_format.resolution,
            "patch_size": image.patch_size,
        },
    }
    with new_directory(out) as folder:
        write_folder(
            folder, to_theirs(_rules(config), pretrained.model.state_dict()), settings, config.image_format, "Idefics"
        )
        save_for_others(folder, tokenizer)


def _connector(theirs: dict[str, Any]) -> PerceiverConfig:
    given = section(theirs, "perceiver_config", PERCEIVER_DEFAULTS)
    return PerceiverConfig(
        latents=given["resampler_n_latents"],
        depth=given["resampler_depth"],
        heads=given["resampler_n_heads"],
        head_width=given["resampler_head_dim"],
        activation="relu",
        qk_norm=given["qk_layer_norms_perceiver"],
    )


def _cross(theirs: dict[str, Any], language: CausalTransformerConfig) -> GatedCrossAttentionConfig:
    if theirs["alpha_type"] not in ("float", "vector"):
        raise not_supported("transformers", f"gates of type {theirs['alpha_type']!r}")
    return GatedCrossAttentionConfig(
        heads=language.heads,
        head_width=language.width // language.heads,
        mlp_ratio=language.mlp_ratio,
        activation="swiglu",
        norm="rms",
        norm_eps=language.norm_eps,
        qk_norm=theirs["qk_layer_norms"],
        gate="scalar" if theirs["alpha_type"] == "float" else "vector",
    )


def _one_vocabulary(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, the added tokens' behind the others'."""
    found = dict(theirs)
    for name, added in ADDED.items():
        if added in found:
            found[name] = torch.cat([found[name], found.pop(added)])
    return found


def _rules(config: FlamingoConfig) -> list[Rule]:
    image, connector, language = _parts(config)
    rules = clip_image_rules(image.depth, "model.vision_model")
    us, them = "connector.resampler", "model.perceiver_resampler"
    rules += [Rule((f"{us}.latents",), f"{them}.latents"), *same([(f"{us}.norm", f"{them}.layer_norm")])]
    for n in range(connector.depth):
        rules += _resampler_rules(f"{us}.blocks.{n}", f"{them}.blocks.{n}", connector.qk_norm)
    for n in range(len(crossed(language.depth, config.cross_every, config.cross_at))):
        rules += _gate_rules(config, f"gates.{n}", f"model.gated_cross_attn_layers.{n}")
    return rules + language_rules(language, "language", "model", "lm_head")


def _resampler_rules(us: str, them: str, qk_norm: bool) -> list[Rule]:
    norms = [("norm_tokens", "0.context_layer_norm"), ("norm_latents", "0.latents_layer_norm"), ("norm_mlp", "1.ln")]
    if qk_norm:
        norms += [(f"attention.{x}_norm", f"0.{x}_layer_norm") for x in "qk"]
    linear = [(f"attention.{x}_proj", f"0.{x}_proj") for x in "qkv"] + [("attention.out_proj", "0.output_proj")]
    linear += [("mlp.fc_1", "1.fc"), ("mlp.fc_2", "1.c_proj")]
    return same([(f"{us}.{a}", f"{them}.{b}") for a, b in norms]) + same(
        [(f"{us}.{a}", f"{them}.{b}") for a, b in linear], ("weight",)
    )


def _gate_rules(config: FlamingoConfig, us: str, them: str) -> list[Rule]:
    pairs = [("norm_1", "input_layernorm"), ("norm_2", "post_attention_layernorm")]
    pairs += [(f"attention.{x}_proj", f"cross_attn.{x[0]}_proj") for x in ("q", "k", "v", "out")]
    pairs += [
        (f"mlp.{a}", f"mlp.{b}") for a, b in (("fc_1", "up_proj"), ("fc_gate", "gate_proj"), ("fc_2", "down_proj"))
    ]
    if config.cross.qk_norm:
        pairs += [(f"attention.{x}_norm", f"cross_attn.{x}_layer_norm") for x in "qk"]
    shape = (1,) if config.cross.gate == "scalar" else (1, 1, -1)
    gates = [("gate", "alpha_cross_attn"), ("mlp_gate", "alpha_dense")]
    return same([(f"{us}.{a}", f"{them}.{b}") for a, b in pairs], ("weight",)) + [
        Rule((f"{us}.{a}",), f"{them}.{b}", shape=shape) for a, b in gates
    ]


def _parts(config: FlamingoConfig) -> tuple[VisionTransformerConfig, PerceiverConfig, CausalTransformerConfig]:
    image, connector, language = config.image, config.connector, config.language
    assert isinstance(image, VisionTransformerConfig)
    assert isinstance(connector, PerceiverConfig)
    assert isinstance(language, CausalTransformerConfig)
    return image, connector, language


def _check_writable(config: object) -> FlamingoConfig:
    demand_kind(config, (FlamingoConfig,), WHO, "a model that looks aside at images")
    assert isinstance(config, FlamingoConfig)
    demand_kind(config.image, (VisionTransformerConfig,), WHO, "an image tower")
    demand_kind(config.connector, (PerceiverConfig,), WHO, "a connector")
    language = check_llama(config.language, WHO)
    demand(language, {"kv_heads": (0, language.heads)}, WHO)
    demand(config.image, {**PLAIN_BLOCK, "pooling": "cls", "norm_pre": True, "patch_bias": False}, WHO)
    demand(config.image, {"projection": "none", "layer_scale": 0.0}, WHO)
    demand(config.reading, {"readout": "tokens", "layer": -1, "norm": False, "cls": True}, WHO)
    demand(config.connector, {"mlp_ratio": 4.0, "activation": "relu", "norm_eps": 1e-5}, WHO)
    like = {"heads": language.heads, "head_width": language.width // language.heads, "norm_eps": language.norm_eps}
    demand(config.cross, {**like, "activation": "swiglu", "norm": "rms", "mlp_ratio": language.mlp_ratio}, WHO)
    first = crossed(language.depth, config.cross_every, config.cross_at) == crossed(
        language.depth, config.cross_every, "first"
    )
    if not first or language.depth % config.cross_every or config.image_format.resize != "squash":
        raise CheckpointError(
            f"{WHO} must be given cross_at 'first', a depth that cross_every divides, and an image_format.resize of "
            f"'squash'; got {config.cross_at!r}, {language.depth} and {config.cross_every}, and "
            f"{config.image_format.resize!r}. Keep the model in diptych's own format."
        )
    return config
