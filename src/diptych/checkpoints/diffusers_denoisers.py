"""Denoisers as Hugging Face diffusers keeps them: DiT, PixArt's transformer and Stable Diffusion's U-Net.

A folder of theirs holds config.json and diffusion_pytorch_model.safetensors: the `transformer` or `unet` of a pipeline.
Its texts, codec and schedule are other folders, so what is read here is a denoiser and not a whole model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from diptych.checkpoints.foreign import read_object, unsupported
from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.checkpoints.weights import read_all
from diptych.core.errors import CheckpointError
from diptych.core.files import new_directory, write_json
from diptych.nn.denoiser import Denoiser
from diptych.nn.diffusion_transformer import DiffusionTransformer, DiffusionTransformerConfig
from diptych.nn.unet import UNet, UNetConfig

WEIGHTS, CONFIG = "diffusion_pytorch_model.safetensors", "config.json"
DIT, PIXART, UNET = "DiTTransformer2DModel", "PixArtTransformer2DModel", "UNet2DConditionModel"


def read_denoiser(path: Path) -> Denoiser:
    """The denoiser in a folder, with its weights. Raises CheckpointError for what ours has no place for."""
    settings = read_object(path / CONFIG)
    name = settings.get("_class_name")
    if name not in (DIT, PIXART, UNET):
        raise unsupported("diffusers", f"_class_name {name!r} (known: {DIT}, {PIXART}, {UNET})")
    found = build_denoiser(settings)
    theirs = read_all([path / WEIGHTS])
    state = denoiser_state(found, theirs)
    found.load_state_dict(state)
    return found


def build_denoiser(settings: Mapping[str, Any]) -> Denoiser:
    """A denoiser with fresh weights, of the kind that their settings describe."""
    s = dict(settings)
    if s["_class_name"] == UNET:
        return _unet_config(s).build(s["in_channels"], s["sample_size"], s["cross_attention_dim"], 0)
    demanded = {"activation_fn": "gelu-approximate", "norm_elementwise_affine": False, "attention_bias": True}
    demand_settings(s, demanded)
    pixart = s["_class_name"] == PIXART
    channels = s["in_channels"]
    side = s["sample_size"]
    config = DiffusionTransformerConfig(
        width=s["num_attention_heads"] * s["attention_head_dim"],
        depth=s["num_layers"],
        heads=s["num_attention_heads"],
        patch_size=s["patch_size"],
        modulation="single" if pixart else "block",
        norm_eps=s["norm_eps"] if pixart else 1e-6,  # of DiT theirs is fixed
        mlp_norm_eps=s["norm_eps"],
        time_shift=0 if pixart else 1,
        classes=0 if pixart else s["num_embeds_ada_norm"],
        learned_variance=_doubled(s["out_channels"], channels),
        position_scale=float(s.get("interpolation_scale") or max(side // 64, 1)) if pixart else 1.0,
    )
    if pixart:
        demand_settings(s, {"cross_attention_dim": config.width, "use_additional_conditions": (False, None)})
        if s["caption_channels"] is None:
            raise unsupported("diffusers", "texts without a projection (caption_channels)")
        if s.get("use_additional_conditions") is None and side == 128:
            raise unsupported("diffusers", "conditions of resolution and aspect ratio (use_additional_conditions)")
    return config.build(channels, side, s["caption_channels"] if pixart else 0, 0)


def denoiser_state(denoiser: Denoiser, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors from theirs."""
    shapes = {n: t.shape for n, t in denoiser.state_dict().items()}
    theirs = dict(theirs)
    if isinstance(denoiser, DiffusionTransformer) and denoiser.config.modulation == "block":
        _take_out_copies(theirs, denoiser.config.depth)
    return to_ours(rules_of(denoiser), theirs, shapes)


def their_state(denoiser: Denoiser) -> dict[str, Tensor]:
    """Their tensors from ours."""
    found = to_theirs(rules_of(denoiser), denoiser.state_dict())
    if isinstance(denoiser, DiffusionTransformer) and denoiser.config.modulation == "block":
        first = "transformer_blocks.0.norm1.emb."
        for name in [n for n in found if n.startswith(first)]:
            for i in range(1, denoiser.config.depth):
                found[name.replace(".0.", f".{i}.", 1)] = found[name].clone()
    return found


def write_denoiser(denoiser: Denoiser, path: Path, settings: Mapping[str, Any]) -> None:
    """Write a folder that diffusers loads. `settings` are theirs, as they were read; they must describe `denoiser`."""
    if getattr(build_denoiser(settings), "config", None) != getattr(denoiser, "config", 0):
        raise CheckpointError(
            "their settings must describe the denoiser; got those of another. Give the config.json that it came with."
        )
    with new_directory(path) as folder:
        save_file(their_state(denoiser), folder / WEIGHTS, metadata={"format": "pt"})
        write_json(folder / CONFIG, dict(settings))


def rules_of(denoiser: Denoiser) -> list[Rule]:
    """What is called how."""
    if isinstance(denoiser, UNet):
        return _unet_rules(denoiser)
    assert isinstance(denoiser, DiffusionTransformer)
    return _transformer_rules(denoiser.config)


def _transformer_rules(config: DiffusionTransformerConfig) -> list[Rule]:
    single = config.modulation == "single"
    rules = same([("patch_embed", "pos_embed.proj")])
    clock = "adaln_single.emb.timestep_embedder" if single else "transformer_blocks.0.norm1.emb.timestep_embedder"
    rules += same([(f"time_embed.fc_{i}", f"{clock}.linear_{i}") for i in (1, 2)])
    if single:
        rules += same([(f"context_embed.fc_{i}", f"caption_projection.linear_{i}") for i in (1, 2)])
        rules += same([("modulation", "adaln_single.linear"), ("head", "proj_out")])
        rules.append(Rule(("table_final",), "scale_shift_table"))
    else:
        rules += same([("modulation_final", "proj_out_1"), ("head", "proj_out_2")])
        table = "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"
        rules.append(Rule(("class_embed.weight",), table))
    for n in range(config.depth):
        us, them = f"blocks.{n}", f"transformer_blocks.{n}"
        rules += attention_rules(f"{us}.attention", f"{them}.attn1")
        rules += same([(f"{us}.mlp.fc_1", f"{them}.ff.net.0.proj"), (f"{us}.mlp.fc_2", f"{them}.ff.net.2")])
        if single:
            rules += attention_rules(f"{us}.cross_attention", f"{them}.attn2")
            rules.append(Rule((f"{us}.table",), f"{them}.scale_shift_table"))
        else:
            rules += same([(f"{us}.modulation", f"{them}.norm1.linear")])
    return rules


def attention_rules(ours: str, theirs: str, bias: bool = True) -> list[Rule]:
    """An attention; without `bias`, only its map out has one."""
    pairs = [(f"{ours}.{n}_proj", f"{theirs}.to_{n}") for n in "qkv"]
    rules = same(pairs, ("weight", "bias") if bias else ("weight",))
    return rules + same([(f"{ours}.out_proj", f"{theirs}.to_out.0")])


def _take_out_copies(theirs: dict[str, Tensor], depth: int) -> None:
    """Every block of theirs holds the embeddings of time and class anew; all must be those of the first."""
    first = "transformer_blocks.0.norm1.emb."
    for name in [n for n in theirs if n.startswith(first)]:
        for i in range(1, depth):
            copy = theirs.pop(name.replace(".0.", f".{i}.", 1))
            if not copy.equal(theirs[name]):
                raise unsupported("diffusers", f"embeddings of time and class of its own in block {i}")


def _unet_config(s: dict[str, Any]) -> UNetConfig:
    demand_settings(
        s,
        {
            "act_fn": "silu",
            "mid_block_type": ("UNetMidBlock2DCrossAttn", None),
            "transformer_layers_per_block": 1,
            "class_embed_type": None,
            "addition_embed_type": None,
            "center_input_sample": False,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "only_cross_attention": False,
            "dual_cross_attention": False,
            "resnet_time_scale_shift": "default",
            "downsample_padding": 1,
        },
    )
    down = s["down_block_types"]
    known = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
    if any(kind not in known for kind in down) or not isinstance(s["attention_head_dim"], int):
        raise unsupported("diffusers", f"down_block_types {down} with attention_head_dim {s['attention_head_dim']}")
    up = tuple("CrossAttnUpBlock2D" if known[kind] else "UpBlock2D" for kind in reversed(down))
    if tuple(s["up_block_types"]) != up:
        raise unsupported("diffusers", f"up_block_types {s['up_block_types']} that do not mirror down_block_types")
    return UNetConfig(
        widths=tuple(s["block_out_channels"]),
        depth=s["layers_per_block"],
        heads=s["attention_head_dim"],  # their name is a mistake that they keep: it is a number of heads
        attends=tuple(known[kind] for kind in down),
        groups=s["norm_num_groups"],
        norm_eps=s["norm_eps"],
        linear_projection=s["use_linear_projection"],
    )


def _unet_rules(unet: UNet) -> list[Rule]:
    rules = same([("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out")])
    rules += same([(f"time_embed.fc_{i}", f"time_embedding.linear_{i}") for i in (1, 2)])
    shapes = unet.state_dict()

    def stage(us: str, them: str, count: int, attends: bool) -> None:
        for i in range(count):
            block, their_block = f"{us}.residuals.{i}", f"{them}.resnets.{i}"
            pairs = [(f"{block}.{n}_{k}", f"{their_block}.{n}{k}") for k in (1, 2) for n in ("norm", "conv")]
            pairs.append((f"{block}.time", f"{their_block}.time_emb_proj"))
            if f"{block}.shortcut.weight" in shapes:
                pairs.append((f"{block}.shortcut", f"{their_block}.conv_shortcut"))
            rules.extend(same(pairs))
        readers = (1 if us == "middle" else count) if attends else 0
        for i in range(readers):
            rules.extend(_reader(f"{us}.readers.{i}", f"{them}.attentions.{i}"))

    levels, c = len(unet.config.widths), unet.config
    for i in range(levels):
        stage(f"down.{i}", f"down_blocks.{i}", c.depth, c.attends[i])
        stage(f"up.{i}", f"up_blocks.{i}", c.depth + 1, c.attends[levels - 1 - i])
        if i < levels - 1:
            rules += same([(f"down.{i}.resize", f"down_blocks.{i}.downsamplers.0.conv")])
            rules += same([(f"up.{i}.resize", f"up_blocks.{i}.upsamplers.0.conv")])
    stage("middle", "mid_block", 2, True)
    return rules


def _reader(us: str, them: str) -> list[Rule]:
    inner = f"{them}.transformer_blocks.0"
    pairs = [
        (f"{us}.norm", f"{them}.norm"),
        (f"{us}.proj_in", f"{them}.proj_in"),
        (f"{us}.proj_out", f"{them}.proj_out"),
    ]
    pairs += [(f"{us}.norm_{i}", f"{inner}.norm{i}") for i in (1, 2, 3)]
    pairs += [(f"{us}.fc_1", f"{inner}.ff.net.0.proj"), (f"{us}.fc_2", f"{inner}.ff.net.2")]
    rules = same(pairs) + attention_rules(f"{us}.attention", f"{inner}.attn1", bias=False)
    return rules + attention_rules(f"{us}.cross_attention", f"{inner}.attn2", bias=False)


def _doubled(out: int | None, channels: int) -> bool:
    if out not in (None, channels, 2 * channels):
        raise unsupported("diffusers", f"{out} channels out for {channels} in")
    return out == 2 * channels


def demand_settings(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise a CheckpointError for a setting of theirs that ours has no place for."""
    for name, value in wanted.items():
        allowed = value if isinstance(value, tuple) else (value,)
        if settings.get(name, allowed[0]) not in allowed:
            raise unsupported("diffusers", f"{name}={settings[name]!r}")
