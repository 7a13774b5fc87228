"""GIT as Hugging Face transformers keeps it: CLIP's image tower, a linear map with a norm, BERT's blocks as a decoder.

Images' tokens come first and see each other; positions count text alone.
"""

from pathlib import Path
from typing import Any

from diptych.checkpoints.foreign import (
    PLAIN_BLOCK,
    Foreign,
    demand,
    demand_kind,
    read_object,
    shapes_of,
    square,
    unsupported,
)
from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.checkpoints.transformers_names import (
    FORMAT,
    IGNORED,
    KNOWN_ACTIVATIONS,
    bert_block_rules,
    bert_section,
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
from diptych.core.files import new_directory
from diptych.core.image_format import ImageFormat
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.linear import LinearConfig
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.prefix_lm import PrefixLM, PrefixLMConfig
from diptych.models.pretrained import Pretrained
from diptych.models.vision_transformer import VisionTransformerConfig

__all__ = ["FORMAT", "read", "recognises", "write"]

WHO = "transformers' GIT"
DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 1024,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": False,
    "num_image_with_embedding": None,
}
VISION_DEFAULTS: dict[str, Any] = {
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
}
"""What transformers assumes where config.json is silent."""


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of model_type "git"."""
    return is_model(path, "git")


def read(path: Path) -> Foreign:
    """The model, its tokenizer (None if the folder has none) and its preprocessing, in our terms."""
    text = {**DEFAULTS, **read_object(path / "config.json")}
    vision = section(text, "vision_config", VISION_DEFAULTS)
    if text["num_image_with_embedding"]:
        raise unsupported("transformers", "frames of a video (num_image_with_embedding)")
    side, patch = square(vision["image_size"], "image_size"), square(vision["patch_size"], "patch_size")
    tokens = (side // patch) ** 2 + 1
    context_length = text["max_position_embeddings"] - tokens  # the model has as many positions as all tokens here
    if context_length < 1:
        raise unsupported("transformers", f"no room for text beside the {tokens} tokens of an image")
    config = PrefixLMConfig(
        image=VisionTransformerConfig(**block_settings(vision), patch_size=patch, norm_pre=True, projection="none"),
        embed_dim=vision["hidden_size"],
        reading=ImageReadingConfig(),
        connector=LinearConfig(norm=True, norm_eps=vision["layer_norm_eps"]),
        language=CausalTransformerConfig(
            **block_settings(text),
            norm_position="post",
            positions="learned",
            counted="text",
            tied=text["tie_word_embeddings"],
            head_bias=True,
            norm_embed=True,
            norm_final=False,
        ),
        seen="prefix",
        context_length=context_length,
        image_format=read_image_format(path, side, ImageFormat()),
    )
    theirs = read_folder_weights(path)
    if text["tie_word_embeddings"]:
        theirs.pop("output.weight", None)
    vocab_size = theirs["git.embeddings.word_embeddings.weight"].shape[0]
    state = to_ours(_rules(config), theirs, shapes_of(config, vocab_size), IGNORED)
    return Foreign(config, state, read_tokenizer(path, context_length))


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that `GitForCausalLM` and `AutoTokenizer` load. Refuses what GIT has no place for."""
    config, model, tokenizer = _check_writable(pretrained.model.config), pretrained.model, pretrained.tokenizer
    image, language = config.image, config.language
    assert isinstance(image, VisionTransformerConfig)
    assert isinstance(language, CausalTransformerConfig)
    assert isinstance(model, PrefixLM)
    settings = {
        "model_type": "git",
        "architectures": ["GitForCausalLM"],
        **bert_section(language),
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.language.context_length,
        "tie_word_embeddings": language.tied,
        "num_image_with_embedding": None,
        "bos_token_id": tokenizer.start_id,
        "eos_token_id": tokenizer.end_id,
        "pad_token_id": tokenizer.pad_id,
        "vision_config": {
            "model_type": "git_vision_model",
            **block_section(image),
            "image_size": config.image_format.resolution,
            "patch_size": image.patch_size,
            "num_channels": 3,
        },
    }
    with new_directory(out) as folder:
        write_folder(folder, to_theirs(_rules(config), model.state_dict()), settings, config.image_format, "CLIP")
        save_for_others(folder, tokenizer)


def _rules(config: PrefixLMConfig) -> list[Rule]:
    image, language = config.image, config.language
    assert isinstance(image, VisionTransformerConfig)
    assert isinstance(language, CausalTransformerConfig)
    words = "git.embeddings"
    rules = [
        *clip_image_rules(image.depth, "git.image_encoder.vision_model"),
        *same([("connector.proj", "git.visual_projection.visual_projection.0")]),
        *same([("connector.norm", "git.visual_projection.visual_projection.1")]),
        Rule(("language.token_embed.weight",), f"{words}.word_embeddings.weight"),
        Rule(("language.position_embed",), f"{words}.position_embeddings.weight"),
        *same([("language.norm_embed", f"{words}.LayerNorm")]),
        Rule(("language.head_bias",), "output.bias"),
    ]
    if not language.tied:
        rules.append(Rule(("language.lm_head.weight",), "output.weight"))
    for n in range(language.depth):
        rules += bert_block_rules(f"language.blocks.{n}", f"git.encoder.layer.{n}")
    return rules


def _check_writable(config: object) -> PrefixLMConfig:
    demand_kind(config, (PrefixLMConfig,), WHO, "a model of images before a text")
    assert isinstance(config, PrefixLMConfig)
    demand_kind(config.image, (VisionTransformerConfig,), WHO, "an image tower")
    demand_kind(config.connector, (LinearConfig,), WHO, "a connector")
    demand_kind(config.language, (CausalTransformerConfig,), WHO, "a language model")
    demand(config, {"seen": "prefix", "max_images": 1}, WHO)
    demand(config.reading, {"readout": "tokens", "layer": -1, "cls": True}, WHO)
    assert isinstance(config.image, VisionTransformerConfig)
    demand(config.connector, {"norm": True, "norm_eps": config.image.norm_eps}, WHO)
    tower = {"pooling": "cls", "norm_pre": True, "patch_bias": False, "projection": "none"}
    activations = {"activation": KNOWN_ACTIVATIONS}
    demand(config.image, {**PLAIN_BLOCK, **tower, **activations, "layer_scale": 0.0}, WHO)
    block = {**PLAIN_BLOCK, "norm_position": "post", "layer_scale": 0.0, "kv_heads": 0, **activations}
    text = {"positions": "learned", "counted": "text", "head_bias": True, "norm_embed": True, "norm_final": False}
    demand(config.language, {**block, **text}, WHO)
    return config
