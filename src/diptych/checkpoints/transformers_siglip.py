"""SigLIP (Zhai et al., 2023) as Hugging Face transformers keeps it: MAP pooling, no mask, always padded, logit bias.

Its text tower reads the last of `context_length` places, whatever stands there, and was trained on texts padded to all
of them: the padding id is part of the weights. It must not be given an attention mask, so the tokenizer writes none.
"""

from pathlib import Path
from typing import Any

from diptych.checkpoints.foreign import (
    PLAIN_BLOCK,
    UNCLAMPED_SCALE,
    Foreign,
    demand,
    demand_kind,
    read_object,
    shapes_of,
    square,
    unsupported,
)
from diptych.checkpoints.key_map import Rule, joined, same, to_ours, to_theirs
from diptych.checkpoints.tokenizer_export import save_for_others
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
from diptych.core.files import new_directory
from diptych.core.image_format import ImageFormat
from diptych.models.pretrained import Pretrained
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig

__all__ = ["FORMAT", "IMAGE_FORMAT", "PAD_ID", "read", "recognises", "write"]

IMAGE_FORMAT = ImageFormat(resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""SigLIP's preprocessing."""

PAD_ID = 1
"""SigLIP's padding: the end token of its sentencepiece vocabulary."""

_BLOCK = {
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
}
TEXT_DEFAULTS: dict[str, Any] = {**_BLOCK, "vocab_size": 32000, "max_position_embeddings": 64, "pad_token_id": PAD_ID}
VISION_DEFAULTS: dict[str, Any] = {**_BLOCK, "image_size": 224, "patch_size": 16, "vision_use_head": True}
"""What transformers assumes where config.json is silent; its own files leave most out."""


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of model_type "siglip"."""
    return is_model(path, "siglip")


def read(path: Path) -> Foreign:
    """The model, its tokenizer (None if the folder has none) and its preprocessing, in our terms."""
    theirs = read_object(path / "config.json")
    text = section(theirs, "text_config", TEXT_DEFAULTS)
    vision = section(theirs, "vision_config", VISION_DEFAULTS)
    if not vision["vision_use_head"]:
        raise unsupported("transformers", "a SigLIP image tower without its pooling head")
    tokenizer = read_tokenizer(path, text["max_position_embeddings"])
    if tokenizer is not None:
        tokenizer = tokenizer.replaced(pad_to="context")
    pad_id = text["pad_token_id"] if tokenizer is None else tokenizer.pad_id
    config = TwoTowerConfig(
        image=VisionTransformerConfig(
            **block_settings(vision),
            patch_size=square(vision["patch_size"], "patch_size"),
            patch_bias=True,
            pooling="map",
            norm_pre=False,
            projection="none",
        ),
        text=TextTransformerConfig(
            **block_settings(text), attention="bidirectional", pooling="last", projection="linear_bias", pad_id=pad_id
        ),
        embed_dim=vision["hidden_size"],
        context_length=text["max_position_embeddings"],
        image_format=read_image_format(path, square(vision["image_size"], "image_size"), IMAGE_FORMAT),
        init_logit_bias=-10.0,
        max_logit_scale=UNCLAMPED_SCALE,
    )
    state = to_ours(_rules(config), read_folder_weights(path), shapes_of(config, text["vocab_size"]), IGNORED)
    return Foreign(config, state, tokenizer)


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that `SiglipModel` and `AutoTokenizer` load. Refuses what SigLIP has no place for."""
    config = _check_writable(pretrained.model.config)
    image, text, tokenizer = config.image, config.text, pretrained.tokenizer
    assert isinstance(image, VisionTransformerConfig)
    assert isinstance(text, TextTransformerConfig)
    if tokenizer.pad_id != text.pad_id:
        tokenizer = tokenizer.replaced(pad_id=text.pad_id)
    settings = {
        "model_type": "siglip",
        "architectures": ["SiglipModel"],
        "text_config": {
            "model_type": "siglip_text_model",
            **block_section(text),
            "projection_size": config.embed_dim,
            "vocab_size": pretrained.model.vocab_size,
            "max_position_embeddings": config.context_length,
            "bos_token_id": tokenizer.start_id,
            "eos_token_id": tokenizer.end_id,
            "pad_token_id": text.pad_id,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            **block_section(image),
            "image_size": config.image_format.resolution,
            "patch_size": image.patch_size,
            "num_channels": 3,
        },
    }
    state = to_theirs(_rules(config), pretrained.model.state_dict())
    with new_directory(out) as folder:
        write_folder(folder, state, settings, config.image_format, "Siglip")
        save_for_others(folder, tokenizer, ids_only=True)


def _rules(config: TwoTowerConfig) -> list[Rule]:
    image, text = config.image, config.text
    assert isinstance(image, VisionTransformerConfig)
    assert isinstance(text, TextTransformerConfig)
    pool, head = "image_tower.map_pool", "vision_model.head"
    return [
        *tower_rules((image.depth, text.depth)),
        Rule(("image_tower.patch_embed.bias",), "vision_model.embeddings.patch_embedding.bias"),
        Rule((f"{pool}.probe",), f"{head}.probe", shape=(1, 1, image.width)),
        *joined(f"{pool}.attention", lambda s: f"{head}.attention.in_proj_{s}"),
        *same([(f"{pool}.attention.out_proj", f"{head}.attention.out_proj"), (f"{pool}.norm", f"{head}.layernorm")]),
        *same([(f"{pool}.mlp.fc_{i}", f"{head}.mlp.fc{i}") for i in (1, 2)]),
        *same([("text_tower.projection", "text_model.head")]),
        Rule(("log_logit_scale",), "logit_scale", shape=(1,)),
        Rule(("logit_bias",), "logit_bias", shape=(1,)),
    ]


def _check_writable(config: object) -> TwoTowerConfig:
    who = "transformers' SigLIP"
    demand_kind(config, (TwoTowerConfig,), who, "a dual encoder")
    assert isinstance(config, TwoTowerConfig)
    demand_kind(config.image, (VisionTransformerConfig,), who, "an image tower")
    demand_kind(config.text, (TextTransformerConfig,), who, "a text tower")
    block = {**PLAIN_BLOCK, "layer_scale": 0.0, "activation": ("quick_gelu", "gelu", "gelu_tanh", "relu")}
    image = {"pooling": "map", "norm_pre": False, "patch_bias": True, "projection": "none"}
    text = {"attention": "bidirectional", "pooling": "last", "projection": "linear_bias"}
    demand(config.image, {**block, **image}, who)
    demand(config.text, {**block, **text}, who)
    if config.init_logit_bias is None:
        demand(config, {"init_logit_bias": (-10.0,)}, who)
    return config
