"""FLAVA as Hugging Face transformers keeps it (`FlavaForPreTraining`): two encoders, a third over both, five heads.

What is no part of the function: the poolers of the three encoders, which no output of the pretraining model reads, are
left out both ways, and the embedding of a token's type (all are of the first) is added to that of its place. The image
codebook is a model of its own and is left out too: without a codec the model embeds, scores and fills in texts.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
    KNOWN_ACTIVATIONS,
    bert_section,
    block_settings,
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
from diptych.core.progress import say
from diptych.data.tokenize import Tokenizer
from diptych.models.flava import Flava, FlavaConfig
from diptych.models.pretrained import Pretrained
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig

__all__ = ["FORMAT", "read", "recognises", "write"]

WHO = "transformers' FLAVA"
BLOCK: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
}
VISION_DEFAULTS: dict[str, Any] = {**BLOCK, "image_size": 224, "patch_size": 16, "vocab_size": 8192, "mask_token": True}
TEXT_DEFAULTS: dict[str, Any] = {**BLOCK, "vocab_size": 30522, "max_position_embeddings": 512}
FUSION_DEFAULTS: dict[str, Any] = {**BLOCK, "num_hidden_layers": 6, "use_cls_token": True}
"""What transformers assumes where config.json is silent."""
TYPES = "flava.text_model.embeddings.token_type_embeddings.weight"
PLACES = "flava.text_model.embeddings.position_embeddings.weight"
IGNORED = (
    r"(^|\.)(position_ids|token_type_ids)$|^flava\.(image|text|multimodal)_model\.pooler\.|^image_codebook\."
    r"|^(mim|mlm|mmm_image|mmm_text)_head\.bias$"
)
"""Names that hold no weights of ours; a head's bias stands under its decoder, of which it is another name."""


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of model_type "flava"."""
    return is_model(path, "flava")


def read(path: Path) -> Foreign:
    """The model, its tokenizer (None if the folder has none) and its preprocessing, in our terms."""
    theirs = read_object(path / "config.json")
    vision, text, fusion = (
        section(theirs, f"{name}_config", defaults)
        for name, defaults in (("image", VISION_DEFAULTS), ("text", TEXT_DEFAULTS), ("multimodal", FUSION_DEFAULTS))
    )
    _check_readable(vision, text, fusion)
    side, weights = square(vision["image_size"], "image_size"), read_folder_weights(path)
    tokenizer = read_tokenizer(path, text["max_position_embeddings"])
    vocab_size = weights["flava.text_model.embeddings.word_embeddings.weight"].shape[0]
    config = FlavaConfig(
        image=VisionTransformerConfig(
            **block_settings(vision),
            patch_size=square(vision["patch_size"], "patch_size"),
            norm_pre=False,
            patch_bias=True,
            projection="linear_bias",
            mask_token=True,
        ),
        text=TextTransformerConfig(
            **block_settings(text), norm_pre=True, attention="bidirectional", pooling="cls", projection="linear_bias"
        ),
        fusion=BlockConfig(**block_settings(fusion)),
        codebook_size=vision["vocab_size"],
        embed_dim=theirs.get("projection_dim", 768),
        mask_id=_mask_id(theirs, tokenizer, vocab_size),
        context_length=text["max_position_embeddings"],
        image_format=read_image_format(path, side, ImageFormat(resize="squash")),
    )
    weights[PLACES] = weights[PLACES].float() + weights.pop(TYPES)[0].float()
    state = to_ours(_rules(config), weights, shapes_of(config, vocab_size), IGNORED)
    return Foreign(config, state, tokenizer)


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that `FlavaForPreTraining` loads. Refuses what FLAVA has no place for."""
    config, model, tokenizer = _check_writable(pretrained.model.config), pretrained.model, pretrained.tokenizer
    assert isinstance(model, Flava)
    image, text = config.image, config.text
    assert isinstance(image, VisionTransformerConfig)
    rows = model.text_tower.token_embed.num_embeddings
    vision_section = {
        **_section(image, "flava_image_model"),
        "image_size": config.image_format.resolution,
        "patch_size": image.patch_size,
        "vocab_size": model.mim_head.decoder.out_features,
        "mask_token": True,
    }
    text_section = {
        **_section(text, "flava_text_model"),
        "vocab_size": rows,
        "max_position_embeddings": config.context_length,
        "type_vocab_size": 2,
        "pad_token_id": tokenizer.pad_id,
    }
    settings = {
        "model_type": "flava",
        "architectures": ["FlavaForPreTraining"],
        "image_config": vision_section,
        "text_config": text_section,
        "multimodal_config": {**_section(config.fusion, "flava_multimodal_model"), "use_cls_token": True},
        "hidden_size": config.fusion.width,
        "layer_norm_eps": config.fusion.norm_eps,
        "projection_dim": config.embed_dim,
        "init_codebook": False,
        "mask_token_id": model.mask_id,
    }
    ours = {n: t for n, t in model.state_dict().items() if not n.startswith("codec.")}
    if len(ours) < len(model.state_dict()):
        say(f"{WHO} is written without the image codec; diptych's own format keeps it.")
    state: dict[str, Tensor] = to_theirs(_rules(config), ours)
    state[TYPES] = torch.zeros(2, text.width)
    with new_directory(out) as folder:
        write_folder(folder, state, settings, config.image_format, "CLIP")
        save_for_others(folder, tokenizer)


def _rules(config: FlavaConfig) -> list[Rule]:
    image = config.image
    assert isinstance(image, VisionTransformerConfig)
    us, them, words = "image_tower", "flava.image_model", "flava.text_model"
    places = (config.image_format.resolution // image.patch_size) ** 2 + 1
    rules = [
        Rule((f"{us}.cls_token",), f"{them}.embeddings.cls_token", shape=(1, 1, image.width)),
        Rule((f"{us}.mask_token",), f"{them}.embeddings.mask_token", shape=(1, 1, image.width)),
        Rule((f"{us}.position_embed",), f"{them}.embeddings.position_embeddings", shape=(1, places, image.width)),
        Rule(("text_tower.token_embed.weight",), f"{words}.embeddings.word_embeddings.weight"),
        Rule(("text_tower.position_embed",), PLACES),
        Rule(("fusion.cls_token",), "flava.multimodal_model.cls_token", shape=(1, 1, config.fusion.width)),
        Rule(("log_logit_scale",), "flava.logit_scale"),
    ]
    pairs = [
        (f"{us}.patch_embed", f"{them}.embeddings.patch_embeddings.projection"),
        (f"{us}.norm_post", f"{them}.layernorm"),
        (f"{us}.projection", "flava.image_projection"),
        ("text_tower.norm_pre", f"{words}.embeddings.LayerNorm"),
        ("text_tower.norm_final", f"{words}.layernorm"),
        ("text_tower.projection", "flava.text_projection"),
        ("fusion.image_projection", "flava.image_to_mm_projection"),
        ("fusion.text_projection", "flava.text_to_mm_projection"),
        ("fusion.norm", "flava.multimodal_model.layernorm"),
        ("matching_head.pooler", "itm_head.pooler.dense"),
        ("matching_head.classifier", "itm_head.seq_relationship"),
    ]
    heads = (("mim", "mim"), ("mlm", "mlm"), ("image", "mmm_image"), ("text", "mmm_text"))
    for ours, theirs in heads:
        pairs += [
            (f"{ours}_head.dense", f"{theirs}_head.transform.dense"),
            (f"{ours}_head.norm", f"{theirs}_head.transform.LayerNorm"),
            (f"{ours}_head.decoder", f"{theirs}_head.decoder"),
        ]
    depths = (("image_tower", them, image), ("text_tower", words, config.text))
    for ours, theirs, block in (*depths, ("fusion", "flava.multimodal_model", config.fusion)):
        for n in range(block.depth):
            pairs += _block(f"{ours}.blocks.{n}", f"{theirs}.encoder.layer.{n}")
    return rules + same(pairs)


def _block(ours: str, theirs: str) -> list[tuple[str, str]]:
    """A block of theirs: BERT's names, a ViT's order."""
    pairs = [(f"{ours}.attention.{n[0]}_proj", f"{theirs}.attention.attention.{n}") for n in ("query", "key", "value")]
    return [
        *pairs,
        (f"{ours}.attention.out_proj", f"{theirs}.attention.output.dense"),
        (f"{ours}.norm_1", f"{theirs}.layernorm_before"),
        (f"{ours}.norm_2", f"{theirs}.layernorm_after"),
        (f"{ours}.mlp.fc_1", f"{theirs}.intermediate.dense"),
        (f"{ours}.mlp.fc_2", f"{theirs}.output.dense"),
    ]


def _section(config: BlockConfig, model_type: str) -> dict[str, Any]:
    return {"model_type": model_type, **bert_section(config), "qkv_bias": True}


def _mask_id(theirs: dict[str, Any], tokenizer: Tokenizer | None, vocab_size: int) -> int:
    """Which token hides others: what config.json says (ours does), the tokenizer's [MASK], or the last."""
    named = theirs.get("mask_token_id")
    named = tokenizer.id_of("[MASK]") if named is None and tokenizer is not None else named
    return vocab_size - 1 if named is None else int(named)


def _check_readable(vision: dict[str, Any], text: dict[str, Any], fusion: dict[str, Any]) -> None:
    if not all(part["qkv_bias"] for part in (vision, text, fusion)):
        raise unsupported("transformers", "queries, keys and values without a bias")
    if not (vision["mask_token"] and fusion["use_cls_token"]):
        raise unsupported("transformers", "no mask token or no CLS token of the multimodal encoder")
    for name in ("hidden_size", "hidden_act", "layer_norm_eps"):
        if len({vision[name], text[name], fusion[name]}) > 1:
            raise unsupported("transformers", f"encoders that differ in {name}")


def _check_writable(config: object) -> FlavaConfig:
    demand_kind(config, (FlavaConfig,), WHO, "a model")
    assert isinstance(config, FlavaConfig)
    demand_kind(config.image, (VisionTransformerConfig,), WHO, "an image tower")
    fusion = config.fusion
    alike = {"width": fusion.width, "norm_eps": fusion.norm_eps, "activation": fusion.activation}
    block = {**PLAIN_BLOCK, **alike, "layer_scale": 0.0, "kv_heads": 0}
    demand(fusion, {**block, "activation": KNOWN_ACTIVATIONS}, WHO)
    tower = {"norm_pre": False, "patch_bias": True, "projection": "linear_bias", "mask_token": True, "pooling": "cls"}
    demand(config.image, {**block, **tower}, WHO)
    words = {"norm_pre": True, "norm_final": True, "pooler": False, "pooling": "cls", "projection": "linear_bias"}
    demand(config.text, {**block, **words}, WHO)
    if config.image_format.resolution % getattr(config.image, "patch_size", 1):
        raise CheckpointError(
            f"{WHO} must be given a resolution that is a multiple of the patch size; got "
            f"{config.image_format.resolution}. Train at such a one."
        )
    return config
