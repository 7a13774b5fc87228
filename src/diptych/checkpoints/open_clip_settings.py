"""open_clip's configuration in our terms and ours in its: towers, tokenizer and preprocessing, field by field."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from diptych.checkpoints.foreign import End, square, unsupported
from diptych.core.errors import CheckpointError, DataError
from diptych.core.image_format import ImageFormat
from diptych.data.canonicalise import Canonical
from diptych.data.tokenize import Tokenizer
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.tower import ImageTowerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.nn.mlp import Activation
from diptych.nn.pool import Projection

CLIP_VOCABULARY = 49408
_BLOCK_EXTRAS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
_VISION_EXTRAS = (*_BLOCK_EXTRAS, "attentional_pool", "input_patchnorm", "global_average_pool")
_TEXT_EXTRAS = (*_BLOCK_EXTRAS, "embed_cls", "hf_model_name")
_CLEAN: dict[str, Canonical] = {"lower": "clip", "canonicalize": "siglip", "whitespace": "none"}
"""open_clip's names of spelling rules. Its "whitespace" mends and collapses; we leave such texts to the vocabulary."""

_RESIZE: dict[str, Literal["crop", "squash", "pad"]] = {"shortest": "crop", "squash": "squash", "longest": "pad"}


def is_captioner(settings: Mapping[str, Any]) -> bool:
    """Whether `open_clip_config.json` is that of a model with a caption decoder (CoCa)."""
    return "multimodal_cfg" in settings.get("model_cfg", settings)


def vision_config(theirs: Mapping[str, Any], quick_gelu: bool) -> ImageTowerConfig:
    """The image tower's settings, for open_clip's own ViT and ResNet."""
    _refuse(theirs, _VISION_EXTRAS, "vision_cfg")
    layers = theirs.get("layers", 12)
    if isinstance(layers, (list, tuple)):
        if theirs.get("head_width", 64) != 64:
            raise unsupported("open_clip", f"a ResNet with head_width {theirs['head_width']}")
        a, b, c, d = layers
        return ModifiedResNetConfig(stem_width=theirs.get("width", 64), depths=(a, b, c, d))
    if theirs.get("pool_type", "tok") != "tok":
        raise unsupported("open_clip", f"an image tower with pool_type {theirs['pool_type']!r}")
    width = theirs.get("width", 768)
    return VisionTransformerConfig(
        **_block(theirs, width, layers, width // theirs.get("head_width", 64), quick_gelu),
        patch_size=square(theirs.get("patch_size", 16), "patch_size"),
        norm_pre=not theirs.get("no_ln_pre", False),
        patch_dropout=theirs.get("patch_dropout", 0.0),
    )


def text_config(theirs: Mapping[str, Any], quick_gelu: bool, tokenizer: Tokenizer | None) -> TextTransformerConfig:
    """The text tower's settings."""
    _refuse(theirs, _TEXT_EXTRAS, "text_cfg")
    pooling = theirs.get("pool_type", "argmax")
    free = bool(theirs.get("no_causal_mask", False))
    if pooling not in ("argmax", "eos", "last") or (free and pooling != "last"):
        sight = "without a causal mask " if free else ""
        raise unsupported("open_clip", f"a text tower {sight}with pool_type {pooling!r}")
    projection: Projection = "none" if theirs.get("proj_type", "linear") == "none" else "linear"
    if theirs.get("proj_bias", False) and projection == "linear":
        projection = "linear_bias"
    settings = _block(theirs, theirs.get("width", 512), theirs.get("layers", 12), theirs.get("heads", 8), quick_gelu)
    return TextTransformerConfig(
        **settings,
        attention="bidirectional" if free else "causal",
        pooling="last" if pooling == "last" else "eos",
        pad_id=theirs.get("pad_id", 0) if tokenizer is None else tokenizer.pad_id,
        projection=projection,
    )


def vision_settings(config: VisionTransformerConfig, resolution: int) -> dict[str, Any]:
    """`vision_cfg` of a vision transformer with a CLS token."""
    return {
        "image_size": resolution,
        "layers": config.depth,
        "width": config.width,
        "head_width": config.width // config.heads,
        "patch_size": config.patch_size,
        **block_settings(config),
        **({} if config.norm_pre else {"no_ln_pre": True}),
        **({"patch_dropout": config.patch_dropout} if config.patch_dropout else {}),
    }


def text_settings(
    text: TextTransformerConfig, config: TwoTowerConfig, vocab_size: int, tokenizer: Tokenizer
) -> dict[str, Any]:
    """`text_cfg`. The tokenizer is read from the same folder, whatever `hf_tokenizer_name` says."""
    clean = next(name for name, kind in _CLEAN.items() if kind == tokenizer.config.canonicalise)
    return {
        "context_length": config.context_length,
        "vocab_size": vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.depth,
        **block_settings(text),
        **({"no_causal_mask": True} if text.attention == "bidirectional" else {}),
        **({"pool_type": "last"} if text.pooling == "last" else {"pool_type": "eos", "eos_id": tokenizer.end_id}),
        "pad_id": tokenizer.pad_id,
        **({"proj_bias": True} if text.projection == "linear_bias" else {}),
        **({"proj_type": "none"} if text.projection == "none" else {}),
        "hf_tokenizer_name": "local",
        "tokenizer_kwargs": {"clean": clean},
    }


def block_settings(config: BlockConfig) -> dict[str, Any]:
    """What `vision_cfg` and `text_cfg` say alike of a block."""
    ratio = config.mlp_width / config.width
    if int(config.width * ratio) != config.mlp_width:  # they cut where we round
        ratio = (config.mlp_width + 0.5) / config.width
    return {
        "mlp_ratio": ratio,
        **({"act_kwargs": {"approximate": "tanh"}} if config.activation == "gelu_tanh" else {}),
        **({"norm_kwargs": {"eps": config.norm_eps}} if config.norm_eps != 1e-5 else {}),
        **({"ls_init_value": config.layer_scale} if config.layer_scale else {}),
    }


def read_tokenizer(theirs: Mapping[str, Any], folder: Path) -> Tokenizer | None:
    """CLIP's own tokenizer, or the one whose files lie in the folder; None if it should lie there and does not."""
    context_length = theirs.get("context_length", 77)
    if not theirs.get("hf_tokenizer_name"):
        known = theirs.get("vocab_size", CLIP_VOCABULARY) == CLIP_VOCABULARY
        return Tokenizer.clip(context_length) if known else None
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        return None
    try:
        found = Tokenizer.load(folder)
    except DataError as error:
        raise CheckpointError(f"{folder} must hold a tokenizer that can be read; {error}") from None
    clean = (theirs.get("tokenizer_kwargs") or {}).get("clean", "whitespace")
    if clean not in _CLEAN:
        raise unsupported("open_clip", f"a tokenizer with clean {clean!r}")
    last = theirs.get("pool_type") == "last"
    return found.replaced(
        context_length=context_length, canonicalise=_CLEAN[clean], pad_to="context" if last else found.config.pad_to
    )


def end_of(theirs: Mapping[str, Any]) -> End:
    """The token that the text tower pools at."""
    pooling = theirs.get("pool_type", "argmax")
    if pooling == "eos":
        return int(theirs.get("eos_id", 2))
    return "highest" if pooling == "argmax" else None


def image_format(theirs: Mapping[str, Any], resolution: int) -> ImageFormat:
    """The preprocessing; open_clip's defaults are CLIP's."""
    default = ImageFormat(resolution=resolution)
    mode, interpolation = theirs.get("resize_mode") or "shortest", theirs.get("interpolation") or "bicubic"
    if mode not in _RESIZE or interpolation not in ("bicubic", "bilinear"):
        raise unsupported("open_clip", f"resize_mode {mode!r} with interpolation {interpolation!r}")
    fill = theirs.get("fill_color", 0)
    return default.replace(
        resize=_RESIZE[mode],
        interpolation=interpolation,
        mean=tuple(theirs.get("mean") or default.mean),
        std=tuple(theirs.get("std") or default.std),
        **({"fill": (fill, fill, fill)} if mode == "longest" else {}),
    )


def preprocess_settings(config: ImageFormat) -> dict[str, Any]:
    """`preprocess_cfg`. Padding there is of one grey value."""
    if config.resize == "pad" and len(set(config.fill)) > 1:
        raise CheckpointError(
            f"open_clip must be given an image_format.fill of one grey value; got {config.fill}. "
            "Use resize=squash or crop."
        )
    return {
        "size": config.resolution,
        "mean": list(config.mean),
        "std": list(config.std),
        "interpolation": config.interpolation,
        "resize_mode": next(name for name, kind in _RESIZE.items() if kind == config.resize),
        **({"fill_color": config.fill[0]} if config.resize == "pad" else {}),
    }


def _block(theirs: Mapping[str, Any], width: int, depth: int, heads: int, quick_gelu: bool) -> dict[str, Any]:
    activation: Activation = "gelu"
    if quick_gelu:
        activation = "quick_gelu"
    elif (theirs.get("act_kwargs") or {}).get("approximate") == "tanh":
        activation = "gelu_tanh"
    return {
        "width": width,
        "depth": depth,
        "heads": heads,
        "mlp_ratio": int(width * theirs.get("mlp_ratio", 4.0)) / width,  # they cut where we round
        "activation": activation,
        "norm_eps": (theirs.get("norm_kwargs") or {}).get("eps", 1e-5),
        "layer_scale": theirs.get("ls_init_value") or 0.0,
    }


def _refuse(theirs: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    present = [n for n in names if theirs.get(n)]
    if theirs.get("block_type") == "custom":
        present.append("block_type")
    if present:
        raise unsupported("open_clip", f"{', '.join(f'{where}.{n} = {theirs[n]!r}' for n in present)}")
