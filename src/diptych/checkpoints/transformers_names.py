"""What folders of Hugging Face transformers share: names of CLIP's and BERT's parts, files, preprocessing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor

from diptych.checkpoints.foreign import read_object, square, unsupported
from diptych.checkpoints.key_map import Rule, same
from diptych.checkpoints.weights import read_all
from diptych.core.errors import CheckpointError, DataError
from diptych.core.files import write_json
from diptych.core.image_format import ImageFormat
from diptych.core.progress import say
from diptych.data.tokenize import Tokenizer
from diptych.nn.block import BlockConfig
from diptych.nn.mlp import Activation

FORMAT = "transformers"
IGNORED = r"(^|\.)position_ids$"
ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
}
"""Their names of activations. "gelu_new" is the same formula as "gelu_pytorch_tanh"."""
KNOWN_ACTIVATIONS = tuple(dict.fromkeys(ACTIVATIONS.values()))

_RESAMPLE: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""PIL's numbers."""


def block_rules(ours: str, theirs: str) -> list[Rule]:
    """One transformer block."""
    pairs = [(f"{ours}.norm_1", f"{theirs}.layer_norm1"), (f"{ours}.norm_2", f"{theirs}.layer_norm2")]
    pairs += [(f"{ours}.attention.{n}_proj", f"{theirs}.self_attn.{n}_proj") for n in ("q", "k", "v", "out")]
    pairs += [(f"{ours}.mlp.fc_{i}", f"{theirs}.mlp.fc{i}") for i in (1, 2)]
    return same(pairs)


def bert_block_rules(ours: str, theirs: str, crosses: bool = False) -> list[Rule]:
    """A block of BERT's kind, norms behind what they belong to; `crosses`: with attention to other tokens."""
    halves = [("attention", "norm_1", "attention"), *([("cross_attention", "norm_cross", "crossattention")] * crosses)]
    pairs = []
    for attention, norm, name in halves:
        pairs += [(f"{ours}.{attention}.{n[0]}_proj", f"{theirs}.{name}.self.{n}") for n in ("query", "key", "value")]
        pairs += [(f"{ours}.{attention}.out_proj", f"{theirs}.{name}.output.dense")]
        pairs += [(f"{ours}.{norm}", f"{theirs}.{name}.output.LayerNorm")]
    pairs += [(f"{ours}.mlp.fc_1", f"{theirs}.intermediate.dense"), (f"{ours}.mlp.fc_2", f"{theirs}.output.dense")]
    return same([*pairs, (f"{ours}.norm_2", f"{theirs}.output.LayerNorm")])


def clip_image_rules(depth: int, theirs: str) -> list[Rule]:
    """CLIP's image tower without a projection; `theirs` is its name there."""
    us = "image_tower"
    rules = [
        Rule((f"{us}.cls_token",), f"{theirs}.embeddings.class_embedding"),
        Rule((f"{us}.patch_embed.weight",), f"{theirs}.embeddings.patch_embedding.weight"),
        Rule((f"{us}.position_embed",), f"{theirs}.embeddings.position_embedding.weight"),
        *same([(f"{us}.norm_pre", f"{theirs}.pre_layrnorm")]),  # their spelling
        *same([(f"{us}.norm_post", f"{theirs}.post_layernorm")]),
    ]
    for n in range(depth):
        rules += block_rules(f"{us}.blocks.{n}", f"{theirs}.encoder.layers.{n}")
    return rules


def tower_rules(depths: tuple[int, int]) -> list[Rule]:
    """What both towers of both models have: embeddings, blocks and last norms."""
    image, vision, text, language = "image_tower", "vision_model", "text_tower", "text_model"
    rules = [
        Rule((f"{image}.patch_embed.weight",), f"{vision}.embeddings.patch_embedding.weight"),
        Rule((f"{image}.position_embed",), f"{vision}.embeddings.position_embedding.weight"),
        Rule((f"{text}.token_embed.weight",), f"{language}.embeddings.token_embedding.weight"),
        Rule((f"{text}.position_embed",), f"{language}.embeddings.position_embedding.weight"),
        *same([(f"{image}.norm_post", f"{vision}.post_layernorm")]),
        *same([(f"{text}.norm_final", f"{language}.final_layer_norm")]),
    ]
    for n in range(depths[0]):
        rules += block_rules(f"{image}.blocks.{n}", f"{vision}.encoder.layers.{n}")
    for n in range(depths[1]):
        rules += block_rules(f"{text}.blocks.{n}", f"{language}.encoder.layers.{n}")
    return rules


def is_model(path: Path, model_type: str) -> bool:
    """Whether `path` is a folder whose config.json names this model type."""
    file = path / "config.json"
    try:
        return file.is_file() and read_object(file).get("model_type") == model_type
    except CheckpointError:
        return False


def section(config: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A part of config.json over the defaults of its class; an old "<name>_dict" wins entirely, as it does there."""
    legacy = config.get(f"{name}_dict")
    return {**defaults, **(config.get(name) or {} if legacy is None else legacy)}


def block_settings(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of our BlockConfig from a section of config.json."""
    name = theirs["hidden_act"]
    if name not in ACTIVATIONS:
        raise unsupported("transformers", f"hidden_act {name!r} (known: {', '.join(ACTIVATIONS)})")
    return {
        "width": theirs["hidden_size"],
        "depth": theirs["num_hidden_layers"],
        "heads": theirs["num_attention_heads"],
        "mlp_ratio": theirs["intermediate_size"] / theirs["hidden_size"],
        "activation": ACTIVATIONS[name],
        "norm_eps": theirs["layer_norm_eps"],
    }


def block_section(config: BlockConfig) -> dict[str, Any]:
    """A section of config.json from our block's settings."""
    return {
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "hidden_act": activation_name(config.activation),
        "layer_norm_eps": config.norm_eps,
        "attention_dropout": 0.0,
    }


def bert_section(config: BlockConfig) -> dict[str, Any]:
    """The same as BERT's kin have it, with other names of dropout."""
    found = block_section(config)
    found.pop("attention_dropout")
    return {**found, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def activation_name(ours: Activation) -> str:
    """The first of their names of an activation."""
    return next(name for name, known in ACTIVATIONS.items() if known == ours)


def read_folder_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a folder: safetensors before pickles, whole before in shards."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return read_all([path / name])
        if (path / f"{name}.index.json").is_file():
            shards = sorted(set(read_object(path / f"{name}.index.json").get("weight_map", {}).values()))
            if any("/" in s or s.startswith(".") for s in shards):
                raise CheckpointError(f"{path / name}.index.json must name files of its own folder; got {shards}.")
            return read_all([path / s for s in shards])
    raise CheckpointError(f"{path} must hold model.safetensors or pytorch_model.bin; it holds neither. Fetch it again.")


def read_tokenizer(path: Path, context_length: int) -> Tokenizer | None:
    """The tokenizer of a folder at the model's context length, or None if the folder has none."""
    if not (path / "tokenizer.json").is_file() and not (path / "vocab.json").is_file():
        return None
    try:
        found = Tokenizer.load(path)
    except DataError as error:
        raise CheckpointError(f"{path} must hold a tokenizer that can be read; {error}") from None
    return found if found.context_length == context_length else found.with_context_length(context_length)


def read_image_format(path: Path, resolution: int, default: ImageFormat) -> ImageFormat:
    """The preprocessing that travels with a folder; without one, the `default` of its model type, and this is said."""
    settings = _processor(path)
    if settings is None:
        say(f"{path} says nothing of preprocessing (preprocessor_config.json); taking what its model type is known by.")
        return default.replace(resolution=resolution)
    if settings.get("do_rescale", True) is False or abs(settings.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise unsupported("transformers", "pixels that are not scaled by 1/255")
    normalise = settings.get("do_normalize", True)
    resample = settings.get("resample", 3)
    if resample not in _RESAMPLE:
        raise unsupported("transformers", f"resample {resample} (known: 2 bilinear, 3 bicubic)")
    return ImageFormat(
        resolution=resolution,
        resize=_resize_rule(settings, resolution, default),
        interpolation=_RESAMPLE[resample],
        mean=tuple(settings.get("image_mean", default.mean)) if normalise else (0.0, 0.0, 0.0),
        std=tuple(settings.get("image_std", default.std)) if normalise else (1.0, 1.0, 1.0),
    )


def write_folder(
    folder: Path, state: dict[str, Tensor], config: dict[str, Any], format_: ImageFormat, who: str
) -> None:
    """Write weights, config.json and preprocessor_config.json. `who` is "CLIP" or "Siglip"."""
    if format_.resize == "pad":
        raise CheckpointError(
            "transformers must be given an image_format.resize that its processors know (crop or squash); got 'pad'. "
            "Pad the images beforehand, or train with resize=squash."
        )
    side = {"height": format_.resolution, "width": format_.resolution}
    crop = format_.resize == "crop"
    processor = {
        "image_processor_type": f"{who}ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": format_.resolution} if crop else side,
        "resample": next(n for n, name in _RESAMPLE.items() if name == format_.interpolation),
        **({"do_center_crop": True, "crop_size": side} if crop else {"do_center_crop": False} if who == "CLIP" else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(format_.mean),
        "image_std": list(format_.std),
    }
    write_tensors(folder, state, config)
    write_json(folder / "preprocessor_config.json", processor)


def write_tensors(folder: Path, state: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write weights and config.json."""
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})  # transformers asks for the metadata
    write_json(folder / "config.json", config)


def _processor(path: Path) -> dict[str, Any] | None:
    if (path / "preprocessor_config.json").is_file():
        return read_object(path / "preprocessor_config.json")
    if (path / "processor_config.json").is_file():  # transformers 5 nests it
        nested = read_object(path / "processor_config.json").get("image_processor")
        return nested if isinstance(nested, dict) else None
    return None


def _resize_rule(settings: Mapping[str, Any], resolution: int, default: ImageFormat) -> Literal["crop", "squash"]:
    size = settings.get("size", resolution)
    size = {"shortest_edge": size} if isinstance(size, int) and default.resize == "crop" else size
    if isinstance(size, int):
        size = {"height": size, "width": size}
    crop = settings.get("crop_size", resolution)
    crop = square([crop["height"], crop["width"]] if isinstance(crop, dict) else crop, "crop_size")
    crops = settings.get("do_center_crop", default.resize == "crop")
    if "shortest_edge" in size and crops and size["shortest_edge"] == crop == resolution:
        return "crop"
    if size.get("height") == size.get("width") == resolution and (not crops or crop == resolution):
        return "squash"
    raise unsupported(
        "transformers", f"images resized to {size} and cropped to {crop} for a model of side {resolution}"
    )
