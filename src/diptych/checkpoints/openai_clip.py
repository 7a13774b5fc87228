"""OpenAI's CLIP (Radford et al., 2021): the TorchScript archives that it was released as, or their state dicts.

Everything is inferred from shapes, as OpenAI's own loader does: heads are 64 wide, the activation is QuickGELU, pixels
are CLIP's. Weights are stored in half precision there and are read into single precision.
"""

import io
from pathlib import Path

import torch
from torch import Tensor

from diptych.checkpoints.clip_names import IGNORED, resnet_rules, scale_rules, text_rules, vit_rules, with_counters
from diptych.checkpoints.foreign import PLAIN_BLOCK, Foreign, demand, demand_kind, shapes_of
from diptych.checkpoints.key_map import Rule, to_ours, to_theirs
from diptych.checkpoints.weights import read_weights
from diptych.core.errors import CheckpointError
from diptych.core.files import write_atomic
from diptych.core.image_format import ImageFormat
from diptych.data.tokenize import Tokenizer
from diptych.models.modified_resnet import STRIDE, ModifiedResNetConfig
from diptych.models.pretrained import Pretrained
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.tower import ImageTowerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.mlp import Activation

FORMAT = "openai"
HEAD_WIDTH = 64
CLIP_VOCABULARY = 49408


def recognises(path: Path) -> bool:
    """Whether `path` may be one: a weight file (a folder never is)."""
    return path.is_file() and path.suffix in (".pt", ".pth", ".bin", ".safetensors")


def read(path: Path) -> Foreign:
    """The checkpoint in our terms. The tokenizer is CLIP's own, unless the vocabulary has another size."""
    theirs = with_counters(read_weights(path))
    config = infer_config(theirs, "quick_gelu", path)
    vocab_size = theirs["token_embedding.weight"].shape[0]
    state = to_ours(rules_of(config), theirs, shapes_of(config, vocab_size), IGNORED)
    tokenizer = Tokenizer.clip(config.context_length) if vocab_size == CLIP_VOCABULARY else None
    return Foreign(config, state, tokenizer, "highest")


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a state dict (fp32) that OpenAI's `clip.load` reads. Refuses what CLIP has no place for."""
    config = pretrained.model.config
    demand_kind(config, (TwoTowerConfig,), "OpenAI's CLIP", "a dual encoder")
    assert isinstance(config, TwoTowerConfig)
    demand_kind(config.image, (VisionTransformerConfig, ModifiedResNetConfig), "OpenAI's CLIP", "an image tower")
    demand_kind(config.text, (TextTransformerConfig,), "OpenAI's CLIP", "a text tower")
    demand(config, {"init_logit_bias": None}, "OpenAI's CLIP")
    block = {**PLAIN_BLOCK, "activation": "quick_gelu", "norm_eps": 1e-5, "mlp_ratio": 4.0, "layer_scale": 0.0}
    for tower in (config.image, config.text):
        if isinstance(tower, (VisionTransformerConfig, TextTransformerConfig)):
            demand(tower, {**block, "heads": tower.width // HEAD_WIDTH, "projection": "linear"}, "OpenAI's CLIP")
    if isinstance(config.image, VisionTransformerConfig):
        demand(config.image, {"pooling": "cls", "norm_pre": True, "patch_bias": False}, "OpenAI's CLIP")
    demand(config.text, {"attention": "causal", "pooling": "eos"}, "OpenAI's CLIP")
    demand(config, {"image_format": ImageFormat(resolution=config.image_format.resolution)}, "OpenAI's CLIP")
    if pretrained.tokenizer.end_id != pretrained.model.vocab_size - 1:
        raise CheckpointError(
            "OpenAI's CLIP must be given a tokenizer whose end token is its highest id, for it pools there; got "
            f"{pretrained.tokenizer.end_id} of {pretrained.model.vocab_size}. Use to-open_clip or to-transformers."
        )
    stream = io.BytesIO()
    torch.save(to_theirs(rules_of(config), pretrained.model.state_dict()), stream)
    write_atomic(out, stream.getvalue())


def rules_of(config: TwoTowerConfig) -> list[Rule]:
    """The rules for a configuration that such a checkpoint can have."""
    image, text = config.image, config.text
    assert isinstance(text, TextTransformerConfig)
    if isinstance(image, ModifiedResNetConfig):
        tower = resnet_rules(image)
    else:
        assert isinstance(image, VisionTransformerConfig)
        tower = vit_rules(image)
    return tower + text_rules(text) + scale_rules(bias=config.init_logit_bias is not None)


def infer_config(state: dict[str, Tensor], activation: Activation, path: Path) -> TwoTowerConfig:
    """The configuration that the shapes of a CLIP state dict call for, with heads 64 wide."""
    for name in ("token_embedding.weight", "positional_embedding", "text_projection", "ln_final.weight"):
        if name not in state:
            raise CheckpointError(
                f"{path} must hold CLIP's tensors by OpenAI's names; it has no {name!r}. "
                "Is it of another format? diptych convert open_clip|transformers PATH OUT."
            )
    width = state["ln_final.weight"].shape[0]
    image, resolution = _infer_image(state, activation, path)
    text = TextTransformerConfig(
        width=width,
        heads=max(width // HEAD_WIDTH, 1),
        depth=_count(state, "transformer.resblocks."),
        activation=activation,
    )
    return TwoTowerConfig(
        image=image,
        text=text,
        embed_dim=state["text_projection"].shape[1],
        context_length=state["positional_embedding"].shape[0],
        image_format=ImageFormat(resolution=resolution),
        init_logit_bias=0.0 if "logit_bias" in state else None,
    )


def _infer_image(state: dict[str, Tensor], activation: Activation, path: Path) -> tuple[ImageTowerConfig, int]:
    if "visual.proj" in state and "visual.conv1.weight" in state and "visual.positional_embedding" in state:
        width, _, patch, _ = state["visual.conv1.weight"].shape
        side = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
        depth = _count(state, "visual.transformer.resblocks.")
        heads = max(width // HEAD_WIDTH, 1)
        vit = VisionTransformerConfig(width=width, heads=heads, depth=depth, patch_size=patch, activation=activation)
        return vit, side * patch
    if "visual.layer1.0.conv1.weight" in state and "visual.attnpool.positional_embedding" in state:
        stem = state["visual.layer1.0.conv1.weight"].shape[0]
        a, b, c, d = (_count(state, f"visual.layer{i}.") for i in (1, 2, 3, 4))
        side = round((state["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
        return ModifiedResNetConfig(stem_width=stem, depths=(a, b, c, d)), side * STRIDE
    raise CheckpointError(
        f"{path} must hold CLIP's vision transformer or ResNet; it has neither 'visual.proj' nor 'visual.attnpool.*'. "
        "Other image towers are not supported."
    )


def _count(state: dict[str, Tensor], prefix: str) -> int:
    """How many numbered modules follow a prefix."""
    return len({name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)})
