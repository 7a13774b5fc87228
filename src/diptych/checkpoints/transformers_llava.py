"""LLaVA 1.5 as Hugging Face transformers keeps it: CLIP's image tower, an MLP, a LLaMA.

There a token stands in the text for each token of an image; here images stand between tokens (`image_position`). The
id of that token is the tokenizer's "<image>"; a model of ours whose tokenizer has none gets one, behind its last id.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import tokenizers
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
    block_rules,
    block_section,
    block_settings,
    is_model,
    read_folder_weights,
    read_image_format,
    read_tokenizer,
    write_folder,
)
from diptych.core.errors import CheckpointError
from diptych.core.files import new_directory, write_json
from diptych.core.image_format import ImageFormat
from diptych.data.tokenize import TOKENIZER_FILE, Tokenizer
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.mlp import MLPConnectorConfig
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.prefix_lm import PrefixLM, PrefixLMConfig
from diptych.models.pretrained import Pretrained
from diptych.models.vision_transformer import VisionTransformerConfig

__all__ = ["FORMAT", "read", "recognises", "write"]

IMAGE = "<image>"
WHO = "transformers' LLaVA"
VISION_DEFAULTS: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""What transformers assumes where config.json is silent."""


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of model_type "llava"."""
    return is_model(path, "llava")


def read(path: Path) -> Foreign:
    """The model, its tokenizer (None if the folder has none) and its preprocessing, in our terms."""
    theirs = read_object(path / "config.json")
    vision = {**VISION_DEFAULTS, **(theirs.get("vision_config") or {})}
    text = {**(theirs.get("text_config") or {})}
    text["tie_word_embeddings"] = theirs.get("tie_word_embeddings") or text.get("tie_word_embeddings") or False
    language = language_settings(text)
    if vision["model_type"] != "clip_vision_model":
        raise not_supported("transformers", f"an image tower of type {vision['model_type']!r} (known: CLIP's)")
    if theirs.get("projector_hidden_act", "gelu") != "gelu" or not theirs.get("multimodal_projector_bias", True):
        raise not_supported("transformers", "a projector without biases or with another activation than gelu")
    side, patch = square(vision["image_size"], "image_size"), square(vision["patch_size"], "patch_size")
    reading = _reading(theirs, vision["num_hidden_layers"])
    tokens = (side // patch) ** 2 + reading.cls
    context_length = text.get("max_position_embeddings", 2048) - tokens
    if context_length < 1:
        raise not_supported("transformers", f"no room for text beside the {tokens} tokens of an image")
    config = PrefixLMConfig(
        image=VisionTransformerConfig(**block_settings(vision), patch_size=patch, norm_pre=True, projection="none"),
        embed_dim=vision["hidden_size"],
        reading=reading,
        connector=MLPConnectorConfig(),
        language=language,
        context_length=context_length,
        image_format=read_image_format(path, side, ImageFormat()),
    )
    named = _named(read_folder_weights(path), language.tied)
    vocab_size = named["language_model.embed_tokens.weight"].shape[0]
    state = to_ours(_rules(config), named, shapes_of(config, vocab_size), IGNORED)
    return Foreign(config, state, read_tokenizer(path, context_length))


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that `LlavaForConditionalGeneration` and its processor load. Refuses what has no place there."""
    config, model = _check_writable(pretrained.model.config), pretrained.model
    assert isinstance(model, PrefixLM)
    assert isinstance(config.image, VisionTransformerConfig)
    tokenizer, state = pretrained.tokenizer, dict(model.state_dict())
    if tokenizer.id_of(IMAGE) is None:
        tokenizer = _with_image_token(tokenizer)
    token = tokenizer.id_of(IMAGE)
    assert token is not None
    rows = max(model.vocab_size, token + 1)
    for name in ("language.token_embed.weight", "language.lm_head.weight"):
        if name in state and rows > len(state[name]):
            state[name] = torch.nn.functional.pad(state[name], (0, 0, 0, rows - len(state[name])))
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": IMAGE,
        "patch_size": config.image.patch_size,
        "vision_feature_select_strategy": _strategy(config),
        "num_additional_image_tokens": 1,
    }
    with new_directory(out) as folder:
        named = {_public(n): t for n, t in to_theirs(_rules(config), state).items()}
        write_folder(folder, named, _settings(model, tokenizer, token, rows), config.image_format, "CLIP")
        write_json(folder / "processor_config.json", processor)
        save_for_others(folder, tokenizer)


def _settings(model: PrefixLM, tokenizer: Tokenizer, token: int, rows: int) -> dict[str, Any]:
    """Their config.json. `token`: the id of an image's token; `rows`: of the vocabulary."""
    config = model.config
    image, language = config.image, config.language
    assert isinstance(image, VisionTransformerConfig)
    assert isinstance(language, CausalTransformerConfig)
    return {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "image_token_index": token,
        "image_seq_length": model.image_tokens,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": config.reading.layer,
        "vision_feature_select_strategy": _strategy(config),
        "tie_word_embeddings": language.tied,
        "text_config": {
            **language_section(language, model.language.context_length, rows),
            "bos_token_id": tokenizer.start_id,
            "eos_token_id": tokenizer.end_id,
            "pad_token_id": tokenizer.pad_id,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **block_section(image),
            "image_size": config.image_format.resolution,
            "patch_size": image.patch_size,
            "num_channels": 3,
        },
    }


def _strategy(config: PrefixLMConfig) -> str:
    return "full" if config.reading.cls else "default"


def _rules(config: PrefixLMConfig) -> list[Rule]:
    image, language = config.image, config.language
    assert isinstance(image, VisionTransformerConfig)
    assert isinstance(language, CausalTransformerConfig)
    us, them = "image_tower", "vision_tower"
    rules = [
        Rule((f"{us}.cls_token",), f"{them}.embeddings.class_embedding"),
        Rule((f"{us}.patch_embed.weight",), f"{them}.embeddings.patch_embedding.weight"),
        Rule((f"{us}.position_embed",), f"{them}.embeddings.position_embedding.weight"),
        *same([(f"{us}.norm_pre", f"{them}.pre_layrnorm")]),  # their spelling
        *same([(f"{us}.norm_post", f"{them}.post_layernorm")]),
        *same([(f"connector.fc_{i}", f"multi_modal_projector.linear_{i}") for i in (1, 2)]),
    ]
    for n in range(image.depth):
        rules += block_rules(f"{us}.blocks.{n}", f"{them}.encoder.layers.{n}")
    return rules + language_rules(language, "language", "language_model", "lm_head")


def _named(theirs: dict[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """Their tensors by one spelling of their names, of which there are three: files of 2023, of 2025, and in memory."""
    found = {}
    for name, tensor in theirs.items():
        name = name.removeprefix("model.").replace("language_model.lm_head.", "lm_head.")
        name = name.replace("language_model.model.", "language_model.")
        name = name.replace("vision_tower.vision_model.", "vision_tower.")
        if not (tied and name == "lm_head.weight"):
            found[name] = tensor
    return found


def _public(name: str) -> str:
    """The spelling of the files that LLaVA's authors published, which every version reads."""
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    name = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name.replace("language_model.", "language_model.model.", 1)


def _reading(theirs: dict[str, Any], depth: int) -> ImageReadingConfig:
    layer, strategy = theirs.get("vision_feature_layer", -2), theirs.get("vision_feature_select_strategy", "default")
    if not isinstance(layer, int):
        raise not_supported("transformers", f"features of several layers ({layer})")
    layer = layer - depth - 1 if layer >= 0 else layer
    if layer == -1:
        raise not_supported("transformers", "features of the last layer without its norm (vision_feature_layer -1)")
    if strategy not in ("default", "full"):
        raise not_supported("transformers", f"vision_feature_select_strategy {strategy!r}")
    return ImageReadingConfig(layer=layer, cls=strategy == "full")


def _check_writable(config: object) -> PrefixLMConfig:
    demand_kind(config, (PrefixLMConfig,), WHO, "a model of images before and in a text")
    assert isinstance(config, PrefixLMConfig)
    demand_kind(config.image, (VisionTransformerConfig,), WHO, "an image tower")
    demand_kind(config.connector, (MLPConnectorConfig,), WHO, "a connector")
    demand(config, {"seen": "causal"}, WHO)
    if config.reading.layer == -1 or config.reading.readout != "tokens":
        raise CheckpointError(
            f"{WHO} must be given tokens of an earlier layer of the image tower (reading.layer=-2 or below); got "
            f"{config.reading}. It reads the last without its norm. Keep the model in diptych's own format."
        )
    activations = ("quick_gelu", "gelu", "gelu_tanh", "relu")
    tower = {"pooling": "cls", "norm_pre": True, "patch_bias": False, "projection": "none", "activation": activations}
    demand(config.image, {**PLAIN_BLOCK, **tower, "layer_scale": 0.0}, WHO)
    check_llama(config.language, WHO)
    return config


def _with_image_token(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with "<image>" behind its last id."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        content = json.loads((Path(folder) / TOKENIZER_FILE).read_text(encoding="utf-8"))
    vocabulary = tokenizers.Tokenizer.from_str(json.dumps(content))
    vocabulary.add_special_tokens([tokenizers.AddedToken(IMAGE, special=True, normalized=False)])
    return Tokenizer(vocabulary, tokenizer.config)
