"""SigLIP's image towers by timm's names, as open_clip holds them under `visual.trunk`."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diptych.checkpoints.foreign import PLAIN_BLOCK, demand, unsupported
from diptych.checkpoints.key_map import Rule, joined, same
from diptych.core.errors import CheckpointError
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.mlp import Activation

_NAME = re.compile(r"vit_(?P<size>[a-z0-9]+)_patch(?P<patch>\d+)_siglip_(?P<side>\d+)(\.\w+)?")
_HEADS = {"so400m": 16, "giantopt": 16}
"""Sizes whose heads are not 64 wide."""

_SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
"""Width, depth, heads and MLP width of the sizes that timm has."""

_KNOWN = tuple(
    f"{size}_patch{patch}_siglip_{side}"
    for size, patch, sides in (
        ("base", 32, (256,)),
        ("base", 16, (224, 256, 384, 512)),
        ("large", 16, (256, 384, 512)),
        ("so400m", 14, (224, 378, 384)),
        ("so400m", 16, (256, 384, 512)),
        ("giantopt", 16, (256, 384)),
    )
    for side in sides
)


def activation_of(name: str) -> Activation:
    """The activation that timm gives a tower of this name (timm 1.0.31, models/vision_transformer.py)."""
    tanh = ("base_patch32", "so400m_patch16", "giantopt_patch16", "large_patch16_siglip_512")
    return "gelu_tanh" if any(part in name for part in tanh) else "gelu"


def config(vision: Mapping[str, Any], state: Mapping[str, Tensor]) -> VisionTransformerConfig:
    """The image tower's settings from `vision_cfg` and the shapes of `visual.trunk`."""
    name = str(vision["timm_model_name"])
    found = _NAME.fullmatch(name)
    projection = vision.get("timm_proj", "linear")
    if found is None or vision.get("timm_pool", "avg") != "map" or projection not in ("none", "linear"):
        raise unsupported("open_clip", f"timm's image tower {name!r} (known: vit_*_siglip_* with timm_pool 'map')")
    if "visual.trunk.pos_embed" not in state or "visual.trunk.blocks.0.mlp.fc1.weight" not in state:
        raise CheckpointError(f"a checkpoint with timm's {name} must hold visual.trunk.*; it does not. Fetch it again.")
    hidden, width = state["visual.trunk.blocks.0.mlp.fc1.weight"].shape
    depth = len({n.split(".")[3] for n in state if n.startswith("visual.trunk.blocks.")})
    if projection == "linear":
        projection = "linear_bias" if vision.get("timm_proj_bias", False) else "linear"
    return VisionTransformerConfig(
        width=width,
        depth=depth,
        heads=_HEADS.get(found["size"], max(width // 64, 1)),
        mlp_ratio=hidden / width,
        activation=activation_of(name),
        norm_eps=1e-6,
        patch_size=int(found["patch"]),
        patch_bias=True,
        pooling="map",
        norm_pre=False,
        projection=projection,
    )


def settings(config: VisionTransformerConfig, resolution: int) -> dict[str, Any]:
    """`vision_cfg`, if timm has a tower of these sizes. Raises CheckpointError that says which it has."""
    for known in _KNOWN:
        found = _NAME.fullmatch(f"vit_{known}")
        assert found is not None
        width, depth, heads, hidden = _SIZES[found["size"]]
        sizes = (config.width, config.depth, config.heads, config.mlp_width, config.patch_size, resolution)
        if sizes == (width, depth, heads, hidden, int(found["patch"]), int(found["side"])):
            wanted = {**PLAIN_BLOCK, "norm_eps": 1e-6, "layer_scale": 0.0, "norm_pre": False, "patch_bias": True}
            demand(config, {**wanted, "activation": activation_of(f"vit_{known}")}, f"open_clip (timm's vit_{known})")
            return {
                "image_size": resolution,
                "timm_model_name": f"vit_{known}",
                "timm_model_pretrained": False,
                "timm_pool": "map",
                "timm_proj": "none" if config.projection == "none" else "linear",
                **({"timm_proj_bias": True} if config.projection == "linear_bias" else {}),
            }
    raise CheckpointError(
        "open_clip must be given an image tower with MAP pooling that timm has by name (SigLIP's sizes: "
        f"{', '.join(_KNOWN[:2])}, ...); got width {config.width}, depth {config.depth}, patch {config.patch_size} at "
        f"{resolution} pixels. Use to-transformers, which takes any size."
    )


def rules(config: VisionTransformerConfig) -> list[Rule]:
    """The tensors of `visual.trunk` (and `visual.head`, where there is a projection)."""
    us, them, pool = "image_tower", "visual.trunk", "image_tower.map_pool"
    rules = [
        *same([(f"{us}.patch_embed", f"{them}.patch_embed.proj"), (f"{us}.norm_post", f"{them}.norm")]),
        Rule((f"{us}.position_embed",), f"{them}.pos_embed", shape=(1, -1, config.width)),
        Rule((f"{pool}.probe",), f"{them}.attn_pool.latent", shape=(1, 1, config.width)),
        *same([(f"{pool}.attention.q_proj", f"{them}.attn_pool.q"), (f"{pool}.norm", f"{them}.attn_pool.norm")]),
        *joined(f"{pool}.attention", lambda s: f"{them}.attn_pool.kv.{s}", "kv"),
        *same([(f"{pool}.attention.out_proj", f"{them}.attn_pool.proj")]),
        *same([(f"{pool}.mlp.fc_{i}", f"{them}.attn_pool.mlp.fc{i}") for i in (1, 2)]),
    ]
    if config.projection != "none":
        suffixes = ("weight", "bias") if config.projection == "linear_bias" else ("weight",)
        rules += same([(f"{us}.projection", "visual.head.proj")], suffixes)
    for n in range(config.depth):
        a, b = f"{us}.blocks.{n}", f"{them}.blocks.{n}"
        pairs = [(f"{a}.norm_{i}", f"{b}.norm{i}") for i in (1, 2)] + [
            (f"{a}.mlp.fc_{i}", f"{b}.mlp.fc{i}") for i in (1, 2)
        ]
        rules += same([*pairs, (f"{a}.attention.out_proj", f"{b}.attn.proj")])
        rules += joined(f"{a}.attention", lambda s, b=b: f"{b}.attn.qkv.{s}")
    return rules
