"""CoCa as open_clip keeps it: a folder of `open_clip_config.json`, with a `multimodal_cfg`, and weights.

Its released weights differ from the paper in two ways, which our configuration names: one pooler whose first query is
the contrastive one (pooling="legacy"), and a mask of the CLS that lies one place off (cls_mask="legacy"). Its code has
the right mask too (correct_cls_mask), but no configuration that 3.3.0 reads can ask for it: so it is read where a file
says so, and never written. open_clip tells padding by its id, which in CLIP's vocabulary is also that of an exclamation
mark inside of a word; we tell it by length. Its decoder's MLPs are always four times as wide as the decoder.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from diptych.checkpoints.clip_names import IGNORED, block_rules, scale_rules, vit_rules
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
from diptych.checkpoints.key_map import Rule, joined, same, to_ours, to_theirs
from diptych.checkpoints.open_clip import CONFIG, FORMAT, WEIGHTS, weights_file
from diptych.checkpoints.open_clip_settings import (
    block_settings,
    image_format,
    is_captioner,
    preprocess_settings,
    read_tokenizer,
    text_config,
    vision_config,
    vision_settings,
)
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.checkpoints.weights import read_weights
from diptych.core.files import new_directory, write_json
from diptych.models.coca import CoCaConfig
from diptych.models.pretrained import Pretrained
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig

__all__ = ["FORMAT", "read", "recognises", "write"]

WHO = "open_clip's CoCa"
DECODER_RATIO = 4.0
UNREAD = ("visual.proj", "visual.ln_post.weight", "visual.ln_post.bias")
"""Tensors that stand behind the image tower there, and are the pooler's here."""


def recognises(path: Path) -> bool:
    """Whether `path` is a folder with open_clip's configuration of a CoCa."""
    return (path / CONFIG).is_file() and is_captioner(read_object(path / CONFIG))


def read(path: Path) -> Foreign:
    """The model, its tokenizer (None if it is not there) and its preprocessing, in our terms."""
    settings = read_object(path / CONFIG)
    model = settings.get("model_cfg", settings)
    vision, text, decoder = model["vision_cfg"], model["text_cfg"], model["multimodal_cfg"]
    quick = bool(model.get("quick_gelu", False))
    if vision.get("attentional_pool") is not True:
        raise unsupported("open_clip", f"attentional_pool {vision.get('attentional_pool')!r} in a CoCa")
    if not text.get("embed_cls") or model.get("init_logit_bias") is not None:
        raise unsupported("open_clip", "a CoCa without embed_cls, or with a logit bias")
    tokenizer = read_tokenizer(text, path)
    words = text_config({k: v for k, v in text.items() if k not in ("embed_cls", "pool_type")}, quick, tokenizer)
    if words.projection != "linear":
        raise unsupported("open_clip", f"a CoCa whose text projection is {words.projection!r}")
    side = square(vision.get("image_size", 224), "image_size")
    config = CoCaConfig(
        image=vision_config({k: v for k, v in vision.items() if k != "attentional_pool"}, quick),
        embed_dim=model["embed_dim"],
        text=BlockConfig(**{n: getattr(words, n) for n in BlockConfig.model_fields}),
        decoder=BlockConfig(
            width=decoder.get("width", 512),
            depth=decoder.get("layers", 12),
            heads=decoder.get("heads", 8),
            mlp_ratio=DECODER_RATIO,
            activation="quick_gelu" if quick else "gelu",
            layer_scale=decoder.get("ls_init_value") or 0.0,
        ),
        pooling="legacy",
        queries=vision.get("attn_pooler_queries", 256),
        pooler_heads=vision.get("attn_pooler_heads", 8),
        cls_mask="correct" if text.get("correct_cls_mask") else "legacy",
        pad_id=text.get("pad_id", 0),
        context_length=text.get("context_length", 77),
        image_format=image_format(settings.get("preprocess_cfg", {}), side),
    )
    _demand_widths(config)
    theirs = read_weights(weights_file(path))
    vocab_size = theirs["text.token_embedding.weight"].shape[0]
    state = to_ours(_rules(config), theirs, shapes_of(config, vocab_size), IGNORED)
    return Foreign(config, state, tokenizer)


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that ``open_clip.create_model_from_pretrained("local-dir:OUT")`` loads, tokenizer included."""
    config, tokenizer = _check_writable(pretrained.model.config), pretrained.tokenizer
    image, vocab_size = config.image, pretrained.model.vocab_size
    assert isinstance(image, VisionTransformerConfig)
    size = {"context_length": config.context_length, "vocab_size": vocab_size}
    clean = {"none": "whitespace", "clip": "lower", "siglip": "canonicalize"}[tokenizer.config.canonicalise]
    settings: dict[str, Any] = {
        "embed_dim": config.embed_dim,
        "quick_gelu": image.activation == "quick_gelu",
        "custom_text": True,
        "vision_cfg": {
            **vision_settings(image, config.image_format.resolution),
            "attentional_pool": True,
            "attn_pooler_queries": config.queries,
            "attn_pooler_heads": config.pooler_heads,
            "output_tokens": True,
        },
        "text_cfg": {
            **size,
            **_half(config.text),
            **block_settings(config.text),
            "embed_cls": True,
            "output_tokens": True,
            "pad_id": config.pad_id,
            "hf_tokenizer_name": "local",
            "tokenizer_kwargs": {"clean": clean},
        },
        "multimodal_cfg": {
            **size,
            **_half(config.decoder),
            **({"ls_init_value": config.decoder.layer_scale} if config.decoder.layer_scale else {}),
        },
    }
    state = to_theirs(_rules(config), pretrained.model.state_dict())
    with new_directory(out) as folder:
        save_file(state, folder / WEIGHTS[0])
        write_json(folder / CONFIG, {"model_cfg": settings, "preprocess_cfg": preprocess_settings(config.image_format)})
        save_for_others(folder, tokenizer)


def _half(block: BlockConfig) -> dict[str, int]:
    return {"width": block.width, "heads": block.heads, "layers": block.depth}


def _rules(config: CoCaConfig) -> list[Rule]:
    image = config.image
    assert isinstance(image, VisionTransformerConfig)
    rules = [rule for rule in vit_rules(image) if rule.theirs not in UNREAD] + scale_rules(bias=False)
    rules += [
        *_pooler_rules(packed=image.width == config.text.width),
        Rule(("image_projection.weight",), "visual.proj", kind="transposed"),
        Rule(("text_half.token_embed.weight",), "text.token_embedding.weight"),
        Rule(("text_half.position_embed",), "text.positional_embedding"),
        Rule(("text_half.cls_token",), "text.cls_emb"),
        *same([("text_norm", "text.ln_final"), ("image_half.norm_final", "text_decoder.ln_final")]),
        Rule(("text_projection.weight",), "text.text_projection", kind="transposed"),
        Rule(("image_half.head.weight",), "text_decoder.text_projection", kind="transposed"),
    ]
    for n in range(config.text.depth):
        ours, theirs = f"text_half.blocks.{n}", f"text.transformer.resblocks.{n}"
        rules += block_rules(ours, theirs, bool(config.text.layer_scale))
    for n in range(config.decoder.depth):
        for kind, name in (("blocks", "resblocks"), ("cross_blocks", "cross_attn")):
            ours, theirs = f"image_half.{kind}.{n}", f"text_decoder.{name}.{n}"
            rules += block_rules(ours, theirs, bool(config.decoder.layer_scale))
        rules += same([(f"image_half.cross_blocks.{n}.norm_context", f"text_decoder.cross_attn.{n}.ln_1_kv")])
    return rules


def _pooler_rules(packed: bool) -> list[Rule]:
    """The pooler; torch keeps its three projections in one matrix where query and context are equally wide."""
    us, them = "pooler", "visual.attn_pool"
    rules = [
        Rule((f"{us}.query",), f"{them}.query"),
        *same(
            [(f"{us}.norm_q", f"{them}.ln_q"), (f"{us}.norm_k", f"{them}.ln_k"), (f"{us}.norm_post", "visual.ln_post")]
        ),
        *same([(f"{us}.attention.out_proj", f"{them}.attn.out_proj")]),
    ]
    if packed:
        return rules + joined(f"{us}.attention", lambda s: f"{them}.attn.in_proj_{s}")
    bias = joined(f"{us}.attention", lambda s: f"{them}.attn.in_proj_{s}")[1]
    weights = [Rule((f"{us}.attention.{n}_proj.weight",), f"{them}.attn.{n}_proj_weight") for n in "qkv"]
    return [*rules, bias, *weights]


def _demand_widths(config: CoCaConfig) -> None:
    """There the pooled tokens are as wide as the contrastive vectors, and read by the decoder as they are."""
    demand(config, {"embed_dim": config.text.width}, WHO)


def _check_writable(config: object) -> CoCaConfig:
    demand_kind(config, (CoCaConfig,), WHO, "a CoCa")
    assert isinstance(config, CoCaConfig)
    demand_kind(config.image, (VisionTransformerConfig,), WHO, "an image tower")
    demand(config, {"pooling": "legacy", "cls_mask": "legacy"}, WHO)
    _demand_widths(config)
    activations: tuple[str, ...] = ("quick_gelu", "gelu")
    for part in (config.image, config.text, config.decoder):
        assert isinstance(part, BlockConfig)
        demand(part, {**PLAIN_BLOCK, "kv_heads": 0, "activation": activations}, WHO)
        activations = (part.activation,)  # one flag for all
    demand(config.image, {"pooling": "cls", "patch_bias": False, "projection": "linear"}, WHO)
    demand(config.decoder, {"norm_eps": 1e-5, "mlp_ratio": DECODER_RATIO}, WHO)
    return config
