"""open_clip: a folder of `open_clip_config.json` and weights, or a bare weight file whose name says which model it is.

QuickGELU is a flag of the configuration there, not of the weights, and lost easily; here it is read from the
configuration or from the name ("ViT-B-32-quickgelu"), and where neither speaks nothing is guessed. Image towers of timm
are read where they are SigLIP's. open_clip runs those with the activation of timm's table, which is the exact GELU for
most of them, although Google trained them all with the tanh approximation: we compute what open_clip computes.
"""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from diptych.checkpoints import timm_siglip
from diptych.checkpoints.clip_names import IGNORED, resnet_rules, scale_rules, text_rules, vit_rules, with_counters
from diptych.checkpoints.foreign import (
    PLAIN_BLOCK,
    UNCLAMPED_SCALE,
    End,
    Foreign,
    check_end,
    demand,
    demand_kind,
    read_object,
    shapes_of,
    square,
)
from diptych.checkpoints.key_map import Rule, to_ours, to_theirs
from diptych.checkpoints.open_clip_settings import (
    block_settings,
    end_of,
    image_format,
    is_captioner,
    preprocess_settings,
    read_tokenizer,
    text_config,
    text_settings,
    vision_config,
    vision_settings,
)
from diptych.checkpoints.openai_clip import infer_config
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.checkpoints.weights import read_weights
from diptych.core.errors import CheckpointError
from diptych.core.files import new_directory, write_json
from diptych.data.tokenize import Tokenizer
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.pretrained import Pretrained
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.tower import ImageTowerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig

FORMAT = "open_clip"
CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}
"""Widths of image towers whose heads are not 64 wide: H, g, bigG and e."""

CLIP_VOCABULARY = 49408


def recognises(path: Path) -> bool:
    """Whether `path` is a folder with open_clip's configuration of a dual encoder, or a weight file."""
    if (path / CONFIG).is_file():
        return not is_captioner(read_object(path / CONFIG))  # those are read by open_clip_coca
    return path.is_file() and path.suffix in (".pt", ".pth", ".bin", ".safetensors")


def read(path: Path) -> Foreign:
    """The model, its tokenizer (None if it is not there) and its preprocessing, in our terms."""
    file = weights_file(path)
    theirs = with_counters(read_weights(file))
    settings = file.parent / CONFIG
    if settings.is_file():
        config, tokenizer, end = _read_config(read_object(settings), file.parent, theirs)
    else:
        config, tokenizer, end = *_read_bare(theirs, file), "highest"
    prefix = "text." if "text.token_embedding.weight" in theirs else ""
    vocab_size = theirs[f"{prefix}token_embedding.weight"].shape[0]
    state = to_ours(_rules(config, prefix), theirs, shapes_of(config, vocab_size), IGNORED)
    return Foreign(config, state, tokenizer, end)


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that ``open_clip.create_model_from_pretrained("local-dir:OUT")`` loads, tokenizer included."""
    config, tokenizer = _check_writable(pretrained.model.config), pretrained.tokenizer
    image, text = config.image, config.text
    assert isinstance(text, TextTransformerConfig)
    if text.pooling == "eos" and tokenizer.end_id is None:
        raise CheckpointError("open_clip must have a tokenizer with an end token to pool at; it has none.")
    if text.pooling == "last" and tokenizer.pad_id != text.pad_id:
        tokenizer = tokenizer.replaced(pad_id=text.pad_id)
    resolution, timm = config.image_format.resolution, False
    if isinstance(image, ModifiedResNetConfig):
        vision = {"image_size": resolution, "layers": list(image.depths), "width": image.stem_width, "patch_size": None}
    else:
        assert isinstance(image, VisionTransformerConfig)
        timm = image.pooling == "map"
        vision = timm_siglip.settings(image, resolution) if timm else vision_settings(image, resolution)
    settings = {
        "embed_dim": config.embed_dim,
        "quick_gelu": text.activation == "quick_gelu",
        **({} if config.init_logit_bias is None else {"init_logit_bias": config.init_logit_bias}),
        **({"custom_text": True} if timm else {}),
        "vision_cfg": vision,
        "text_cfg": text_settings(text, config, pretrained.model.vocab_size, tokenizer),
    }
    state = to_theirs(_rules(config, "text." if timm else ""), pretrained.model.state_dict())
    with new_directory(out) as folder:
        save_file(state, folder / WEIGHTS[0])
        write_json(folder / CONFIG, {"model_cfg": settings, "preprocess_cfg": preprocess_settings(config.image_format)})
        save_for_others(folder, tokenizer, ids_only=text.pooling == "last")


def weights_file(path: Path) -> Path:
    """The weights at `path`, a file or a folder with one of the names that open_clip gives them."""
    if path.is_file():
        return path
    found = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"{path} must hold weights ({', '.join(WEIGHTS)}); it holds none. Fetch it again.")
    return found


def _read_config(
    settings: dict[str, Any], folder: Path, state: dict[str, Tensor]
) -> tuple[TwoTowerConfig, Tokenizer | None, End]:
    model = settings.get("model_cfg", settings)
    vision, text, quick = model["vision_cfg"], model["text_cfg"], bool(model.get("quick_gelu", False))
    resolution = square(vision.get("image_size", 224), "image_size")
    tokenizer = read_tokenizer(text, folder)
    if tokenizer is not None:
        check_end(tokenizer, end_of(text))
    timm = bool(vision.get("timm_model_name"))
    tower: ImageTowerConfig = timm_siglip.config(vision, state) if timm else vision_config(vision, quick)
    bias = model.get("init_logit_bias")
    config = TwoTowerConfig(
        image=tower,
        text=text_config(text, quick, tokenizer),
        embed_dim=model["embed_dim"],
        context_length=text.get("context_length", 77),
        image_format=image_format(settings.get("preprocess_cfg", {}), resolution),
        init_logit_bias=bias,
        max_logit_scale=100.0 if bias is None else UNCLAMPED_SCALE,
    )
    return config, tokenizer, end_of(text)


def _read_bare(state: dict[str, Tensor], file: Path) -> tuple[TwoTowerConfig, Tokenizer | None]:
    """A weight file alone: sizes from its shapes, the activation from its name or its folder's."""
    name = f"{file.parent.name}/{file.stem}".lower()
    if "quickgelu" in name:
        quick = True
    elif re.search(r"(vit-[a-z]+-?\d*|rn\d+)", name):
        quick = False  # what open_clip means by such a name
    else:
        raise CheckpointError(
            f"{file} must come with {CONFIG}, or have a name that holds open_clip's name of the model (ViT-B-32, "
            "ViT-B-32-quickgelu, RN50): shapes do not say which GELU the weights were trained with. Add one of the two."
        )
    config = infer_config(state, "quick_gelu" if quick else "gelu", file)
    if isinstance(config.image, VisionTransformerConfig) and config.image.width in HEAD_WIDTHS:
        heads = config.image.width // HEAD_WIDTHS[config.image.width]
        config = config.replace(image=config.image.replace(heads=heads))
    hidden = state.get("visual.transformer.resblocks.0.mlp.c_fc.weight")
    if hidden is not None and isinstance(config.image, VisionTransformerConfig):
        ratio = hidden.shape[0] / config.image.width
        config = config.replace(image=config.image.replace(mlp_ratio=ratio))
    known = state["token_embedding.weight"].shape[0] == CLIP_VOCABULARY
    return config, Tokenizer.clip(config.context_length) if known else None


def _rules(config: TwoTowerConfig, prefix: str) -> list[Rule]:
    image, text = config.image, config.text
    assert isinstance(text, TextTransformerConfig)
    if isinstance(image, ModifiedResNetConfig):
        rules = resnet_rules(image)
    else:
        assert isinstance(image, VisionTransformerConfig)
        rules = timm_siglip.rules(image) if image.pooling == "map" else vit_rules(image)
    return rules + text_rules(text, prefix) + scale_rules(bias=config.init_logit_bias is not None)


def _check_writable(config: object) -> TwoTowerConfig:
    demand_kind(config, (TwoTowerConfig,), FORMAT, "a dual encoder")
    assert isinstance(config, TwoTowerConfig)
    demand_kind(config.image, (VisionTransformerConfig, ModifiedResNetConfig), FORMAT, "an image tower")
    demand_kind(config.text, (TextTransformerConfig,), FORMAT, "a text tower")
    image, text = config.image, config.text
    assert isinstance(text, TextTransformerConfig)
    kinds = ("quick_gelu", "gelu", "gelu_tanh")
    demand(text, {**PLAIN_BLOCK, "activation": kinds}, FORMAT)
    if text.pooling == "last":
        demand(text, {"attention": ("bidirectional", "causal")}, FORMAT)
    else:
        demand(text, {"attention": "causal", "pooling": "eos"}, FORMAT)
    if isinstance(image, VisionTransformerConfig):
        demand(image, {**PLAIN_BLOCK, "pooling": ("cls", "map")}, FORMAT)
        if image.pooling == "cls":
            same_gelu = ("quick_gelu",) if text.activation == "quick_gelu" else ("gelu", "gelu_tanh")
            demand(image, {"patch_bias": False, "projection": "linear", "activation": same_gelu}, FORMAT)
    block_settings(text)
    return config
