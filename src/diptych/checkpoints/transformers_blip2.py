"""BLIP-2 as Hugging Face transformers keeps it: EVA's image tower, a Q-Former, a language model.

The second stage (`Blip2ForConditionalGeneration`) is a PrefixLM whose language model transformers computes. Of the
first stage transformers has what retrieval needs (`Blip2ForImageTextRetrieval`, `retrieval_rules`), not what writes,
nor the temperature: such a folder is no whole model of ours.

EVA's tower is our vision transformer: its queries, keys and values are one matrix there, and keys have a bias, which no
softmax can see; LAVIS fixes it to zero, transformers and we train it.
"""

import json
from pathlib import Path
from typing import Any

from diptych.checkpoints.foreign import PLAIN_BLOCK, Foreign, demand, demand_kind, read_object, shapes_of, square
from diptych.checkpoints.foreign import unsupported as not_supported
from diptych.checkpoints.key_map import Rule, joined, same, to_ours, to_theirs
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.checkpoints.transformers_names import (
    FORMAT,
    IGNORED,
    KNOWN_ACTIVATIONS,
    activation_name,
    block_section,
    block_settings,
    is_model,
    read_folder_weights,
    read_image_format,
    read_tokenizer,
    section,
    write_folder,
)
from diptych.core.errors import CheckpointError
from diptych.core.files import new_directory, write_json
from diptych.core.image_format import ImageFormat
from diptych.models.blip2 import Blip2Config
from diptych.models.connectors.qformer import QFormerConfig
from diptych.models.hf_language import HFLanguageConfig
from diptych.models.prefix_lm import PrefixLM, PrefixLMConfig
from diptych.models.pretrained import Pretrained
from diptych.models.vision_transformer import VisionTransformerConfig

__all__ = ["FORMAT", "read", "recognises", "write"]

WHO = "transformers' BLIP-2"
IMAGE = "<image>"
WRITING = ("write_token", "writing_head.*", "head_bias", "log_logit_scale")
"""Names of what our first stage has and theirs has not."""
VISION_DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "hidden_size": 1408,
    "intermediate_size": 6144,
    "num_hidden_layers": 39,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "qkv_bias": True,
}
QFORMER_DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "cross_attention_frequency": 2,
    "use_qformer_text_input": False,
}
"""What transformers assumes where config.json is silent."""


class _WithLanguage(Foreign):
    """Of which the vocabulary's rows are those of a transformers language model."""

    @property
    def vocab_size(self) -> int:
        return next(t for n, t in self.state.items() if n.endswith(("embed_tokens.weight", "wte.weight"))).shape[0]


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of model_type "blip-2"."""
    return is_model(path, "blip-2")


def read(path: Path) -> Foreign:
    """The second stage, its tokenizer (None if the folder has none) and its preprocessing, in our terms."""
    theirs = read_object(path / "config.json")
    vision = section(theirs, "vision_config", VISION_DEFAULTS)
    asking = section(theirs, "qformer_config", QFORMER_DEFAULTS)
    text = dict(theirs.get("text_config") or {"model_type": "opt"})
    if "Blip2ForImageTextRetrieval" in (theirs.get("architectures") or ()):
        raise not_supported("transformers", "the first stage of BLIP-2 without the half that writes")
    if theirs.get("use_decoder_only_language_model") is False or text.get("is_encoder_decoder"):
        raise not_supported("transformers", f"a language model with an encoder ({text.get('model_type')!r})")
    if asking["use_qformer_text_input"]:
        raise not_supported("transformers", "a Q-Former that reads the question (InstructBLIP's kind)")
    if not vision["qkv_bias"]:
        raise not_supported("transformers", "an image tower whose queries, keys and values have no bias")
    queries, room = theirs.get("num_query_tokens", 32), text.get("max_position_embeddings", 2048)
    if room <= queries:
        raise not_supported("transformers", f"no room for text beside the {queries} tokens of an image")
    side = square(vision["image_size"], "image_size")
    config = PrefixLMConfig(
        image=vision_settings(vision),
        embed_dim=vision["hidden_size"],
        connector=qformer_settings(asking, queries),
        language=HFLanguageConfig(settings=json.dumps(_plain(text), sort_keys=True)),
        context_length=room - queries,
        image_format=read_image_format(path, side, ImageFormat(resize="squash")),
    )
    weights = read_folder_weights(path)
    rows = next(t for n, t in weights.items() if n.endswith(("embed_tokens.weight", "wte.weight"))).shape[0]
    shapes = shapes_of(config, rows)
    ignore = rf"{IGNORED}|^language_model\.lm_head\.weight$" if "language.lm_head.weight" not in shapes else IGNORED
    state = to_ours(_rules(config, list(shapes)), weights, shapes, ignore)
    return _WithLanguage(config, state, read_tokenizer(path, config.context_length))


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that `Blip2ForConditionalGeneration` loads. Refuses what has no place there."""
    config, model = _check_writable(pretrained.model.config), pretrained.model
    image, asking, language = config.image, config.connector, config.language
    assert isinstance(model, PrefixLM)
    assert isinstance(image, VisionTransformerConfig)
    assert isinstance(asking, QFormerConfig)
    assert isinstance(language, HFLanguageConfig)
    token = pretrained.tokenizer.id_of(IMAGE)
    if token is None:
        raise CheckpointError(
            f"{WHO} must be given a tokenizer with the token {IMAGE}, which stands for an image's tokens there; this "
            "one has none. Train with the tokenizer of a BLIP-2 folder, or keep the model in diptych's own format."
        )
    theirs = language.theirs(vocab_size=model.vocab_size, max_position_embeddings=model.language.context_length)
    settings = {
        "model_type": "blip-2",
        "architectures": ["Blip2ForConditionalGeneration"],
        "num_query_tokens": asking.queries,
        "image_token_index": token,
        "use_decoder_only_language_model": True,
        "text_config": theirs.to_dict(),
        "vision_config": {
            **block_section(image),
            "model_type": "blip_2_vision_model",
            "image_size": config.image_format.resolution,
            "patch_size": image.patch_size,
            "qkv_bias": True,
        },
        "qformer_config": {
            "model_type": "blip_2_qformer",
            "hidden_size": asking.width,
            "intermediate_size": round(asking.width * asking.mlp_ratio),
            "num_hidden_layers": asking.depth,
            "num_attention_heads": asking.heads,
            "hidden_act": activation_name(asking.activation),
            "layer_norm_eps": asking.norm_eps,
            "cross_attention_frequency": asking.cross_every,
            "encoder_hidden_size": image.width,
            "use_qformer_text_input": False,
        },
    }
    state = model.state_dict()
    with new_directory(out) as folder:
        named = to_theirs(_rules(config, list(state)), state)
        write_folder(folder, named, settings, config.image_format, "Blip")
        write_json(folder / "processor_config.json", {"num_query_tokens": asking.queries})
        save_for_others(folder, pretrained.tokenizer)


def vision_settings(theirs: dict[str, Any]) -> VisionTransformerConfig:
    """Our image tower from a vision_config."""
    patch = square(theirs["patch_size"], "patch_size")
    return VisionTransformerConfig(
        **block_settings(theirs), patch_size=patch, norm_pre=False, patch_bias=True, projection="none"
    )


def qformer_settings(theirs: dict[str, Any], queries: int) -> QFormerConfig:
    """Our Q-Former from a qformer_config."""
    return QFormerConfig(queries=queries, cross_every=theirs["cross_attention_frequency"], **block_settings(theirs))


def vision_rules(image: VisionTransformerConfig) -> list[Rule]:
    """The image tower."""
    us, them = "image_tower", "vision_model"
    rules = [
        Rule((f"{us}.cls_token",), f"{them}.embeddings.class_embedding", shape=(1, 1, image.width)),
        Rule((f"{us}.position_embed",), f"{them}.embeddings.position_embedding", shape=(1, -1, image.width)),
        *same([(f"{us}.patch_embed", f"{them}.embeddings.patch_embedding")]),
        *same([(f"{us}.norm_post", f"{them}.post_layernorm")]),
    ]
    for n in range(image.depth):
        mine, yours = f"{us}.blocks.{n}", f"{them}.encoder.layers.{n}"
        rules += same([(f"{mine}.norm_{i}", f"{yours}.layer_norm{i}") for i in (1, 2)])
        rules += same([(f"{mine}.mlp.fc_{i}", f"{yours}.mlp.fc{i}") for i in (1, 2)])
        rules += same([(f"{mine}.attention.out_proj", f"{yours}.self_attn.projection")])
        rules += joined(f"{mine}.attention", lambda s, yours=yours: f"{yours}.self_attn.qkv.{s}")
    return rules


def qformer_rules(config: QFormerConfig, ours: str, reads: bool) -> list[Rule]:
    """The Q-Former; `ours` is its name here, `reads` whether it has the half that reads texts."""
    rules = [Rule((f"{ours}.queries",), "query_tokens", shape=(1, config.queries, config.width))]
    rules += same([(f"{ours}.norm_embed", "qformer.layernorm")])
    for n in range(config.depth):
        mine, yours = f"{ours}.blocks.{n}", f"qformer.encoder.layer.{n}"
        attentions = [("attention", "norm_1", "attention")]
        attentions += [("cross_attention", "norm_cross", "crossattention")] if n % config.cross_every == 0 else []
        for attention, norm, theirs in attentions:
            words = (("q", "query"), ("k", "key"), ("v", "value"))
            rules += same([(f"{mine}.{attention}.{a}_proj", f"{yours}.{theirs}.attention.{b}") for a, b in words])
            rules += same([(f"{mine}.{attention}.out_proj", f"{yours}.{theirs}.output.dense")])
            rules += same([(f"{mine}.{norm}", f"{yours}.{theirs}.output.LayerNorm")])
        halves = [("mlp", "norm_2", "_query"), *([("text_mlp", "norm_text", "")] if reads else [])]
        for mlp, norm, suffix in halves:
            rules += same([(f"{mine}.{mlp}.fc_1", f"{yours}.intermediate{suffix}.dense")])
            rules += same([(f"{mine}.{mlp}.fc_2", f"{yours}.output{suffix}.dense")])
            rules += same([(f"{mine}.{norm}", f"{yours}.output{suffix}.LayerNorm")])
    return rules


def retrieval_rules(config: Blip2Config) -> list[Rule]:
    """The first stage as `Blip2ForImageTextRetrieval` has it: all of ours but `WRITING`."""
    assert isinstance(config.image, VisionTransformerConfig)
    heads = [("query_projection", "vision_projection"), ("text_projection",) * 2, ("matching_head", "itm_head")]
    return [
        *vision_rules(config.image),
        *qformer_rules(config.qformer, "qformer", reads=True),
        Rule(("token_embed.weight",), "embeddings.word_embeddings.weight"),
        Rule(("position_embed",), "embeddings.position_embeddings.weight"),
        *same(heads),
    ]


def _rules(config: PrefixLMConfig, names: list[str]) -> list[Rule]:
    """The second stage; `names` are those of our tensors."""
    assert isinstance(config.image, VisionTransformerConfig)
    assert isinstance(config.connector, QFormerConfig)
    inside = [n.removeprefix("language.") for n in names if n.startswith("language.")]
    return [
        *vision_rules(config.image),
        *qformer_rules(config.connector, "connector", reads=False),
        *same([("connector.proj", "language_projection")]),
        *(Rule((f"language.{n}",), f"language_model.{n.replace('backbone.', 'model.', 1)}") for n in inside),
    ]


def _plain(text: dict[str, Any]) -> dict[str, Any]:
    """The language model's settings without dropout, which packed and padded rows would draw otherwise."""
    drops = ("dropout", "attention_dropout", "layerdrop", "activation_dropout")
    unused = ("architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path")
    return {n: 0.0 if n in drops else v for n, v in text.items() if n not in unused}


def _check_writable(config: object) -> PrefixLMConfig:
    demand_kind(config, (PrefixLMConfig,), WHO, "a language model that reads images")
    assert isinstance(config, PrefixLMConfig)
    demand_kind(config.image, (VisionTransformerConfig,), WHO, "an image tower")
    demand_kind(config.connector, (QFormerConfig,), WHO, "a connector")
    demand_kind(config.language, (HFLanguageConfig,), WHO, "a language model")
    demand(config, {"seen": "causal"}, WHO)
    demand(config.reading, {"readout": "tokens", "layer": -1, "cls": True}, WHO)
    tower = {"pooling": "cls", "norm_pre": False, "patch_bias": True, "projection": "none", "layer_scale": 0.0}
    demand(config.image, {**PLAIN_BLOCK, **tower, "activation": KNOWN_ACTIVATIONS}, WHO)
    demand(config.connector, {"activation": KNOWN_ACTIVATIONS}, WHO)
    return config
