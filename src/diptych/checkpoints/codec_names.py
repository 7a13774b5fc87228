"""How others name the parts of convolutional image codecs: the rules by which theirs become ours and ours theirs.

Two dialects of one network: that of taming-transformers (transformers' Chameleon and Janus), where attention is made of
1x1 convolutions, and that of diffusers, where it is made of linear maps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.models.codecs.autoencoder_kl import AutoencoderKLConfig
from diptych.models.codecs.codec import Codec
from diptych.models.codecs.discrete_vae import DiscreteVAEConfig
from diptych.models.codecs.vqvae import VQVAEConfig
from diptych.nn.codec_blocks import ConvCodecConfig


class Dialect(NamedTuple):
    """Names of parts. In `level` and its parts {i} is a level, {j} a block."""

    down: str
    down_attention: str
    downsample: str
    up: str
    up_attention: str
    upsample: str
    middle: tuple[str, str, str]
    attention: tuple[str, str, str, str, str]
    shortcut: str
    norm_out: str
    convolves: bool


TAMING = Dialect(
    down="down.{i}.block.{j}",
    down_attention="down.{i}.attn.{j}",
    downsample="down.{i}.downsample.conv",
    up="up.{i}.block.{j}",
    up_attention="up.{i}.attn.{j}",
    upsample="up.{i}.upsample.conv",
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    attention=("norm", "q", "k", "v", "proj_out"),
    shortcut="nin_shortcut",
    norm_out="norm_out",
    convolves=True,
)
DIFFUSERS = Dialect(
    down="down_blocks.{i}.resnets.{j}",
    down_attention="down_blocks.{i}.attentions.{j}",
    downsample="down_blocks.{i}.downsamplers.0.conv",
    up="up_blocks.{i}.resnets.{j}",
    up_attention="up_blocks.{i}.attentions.{j}",
    upsample="up_blocks.{i}.upsamplers.0.conv",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    attention=("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
    shortcut="conv_shortcut",
    norm_out="conv_norm_out",
    convolves=False,
)


def encoder_rules(config: ConvCodecConfig, names: Dialect) -> list[Rule]:
    """Of `ConvEncoder`."""
    ours = theirs = "encoder"
    entering = (config.widths[0], *config.widths[:-1])
    rules = _ends(names, ours, theirs)
    for i, (a, b) in enumerate(zip(entering, config.widths, strict=True)):
        for j in range(config.depth):
            to = f"{theirs}.{names.down.format(i=i, j=j)}"
            rules += _block(names, f"{ours}.levels.{i}.blocks.{j}", to, j == 0 and a != b)
            if i in config.attention:
                to = f"{theirs}.{names.down_attention.format(i=i, j=j)}"
                rules += _attention(names, f"{ours}.levels.{i}.attentions.{j}", to, b)
        if i < len(config.widths) - 1:
            rules += same([(f"{ours}.downsamples.{i}", f"{theirs}.{names.downsample.format(i=i)}")])
    return rules + _middle(config, names, ours, theirs)


def decoder_rules(config: ConvCodecConfig, names: Dialect) -> list[Rule]:
    """Of `ConvDecoder`."""
    ours = theirs = "decoder"
    widths = config.widths[::-1]
    last = len(widths) - 1
    entering = (widths[0], *widths[:-1])
    rules = _ends(names, ours, theirs)
    for i, (a, b) in enumerate(zip(entering, widths, strict=True)):
        for j in range(config.depth + 1):
            to = f"{theirs}.{names.up.format(i=i, j=j)}"
            rules += _block(names, f"{ours}.levels.{i}.blocks.{j}", to, j == 0 and a != b)
            if last - i in config.attention:
                to = f"{theirs}.{names.up_attention.format(i=i, j=j)}"
                rules += _attention(names, f"{ours}.levels.{i}.attentions.{j}", to, b)
        if i < last:
            rules += same([(f"{ours}.upsamples.{i}", f"{theirs}.{names.upsample.format(i=i)}")])
    return rules + _middle(config, names, ours, theirs)


def _ends(names: Dialect, ours: str, theirs: str) -> list[Rule]:
    pairs = (("conv_in", "conv_in"), ("norm_out", names.norm_out), ("conv_out", "conv_out"))
    return same([(f"{ours}.{a}", f"{theirs}.{b}") for a, b in pairs])


def _middle(config: ConvCodecConfig, names: Dialect, ours: str, theirs: str) -> list[Rule]:
    first, attention, second = (f"{theirs}.{n}" for n in names.middle)
    if config.middle == "none":
        return []
    rules = _block(names, f"{ours}.middle.block_1", first, False) + _block(
        names, f"{ours}.middle.block_2", second, False
    )
    if config.middle == "attention":
        rules += _attention(names, f"{ours}.middle.attention", attention, config.widths[-1])
    return rules


def _block(names: Dialect, ours: str, theirs: str, widens: bool) -> list[Rule]:
    pairs = [(f"{ours}.{n}_{i}", f"{theirs}.{n}{i}") for n in ("norm", "conv") for i in (1, 2)]
    return same(pairs + ([(f"{ours}.shortcut", f"{theirs}.{names.shortcut}")] if widens else []))


def _attention(names: Dialect, ours: str, theirs: str, width: int) -> list[Rule]:
    mine = ("norm", "q_proj", "k_proj", "v_proj", "out_proj")
    rules = same([(f"{ours}.{mine[0]}", f"{theirs}.{names.attention[0]}")])
    shape = (width, width, 1, 1) if names.convolves else None
    for a, b in zip(mine[1:], names.attention[1:], strict=True):
        rules.append(Rule((f"{ours}.{a}.weight",), f"{theirs}.{b}.weight", shape=shape))
        rules.append(Rule((f"{ours}.{a}.bias",), f"{theirs}.{b}.bias"))
    return rules


def vqvae_rules(config: VQVAEConfig, names: Dialect, decodes: bool = True) -> list[Rule]:
    """Of a `VQVAE` whose codebook learns by gradient, but for what it counts. Not `decodes`: of its encoder
    and codebook alone, with both 1x1 convolutions, as transformers' Chameleon has them."""
    rules = encoder_rules(config.convs, names)
    rules += same([("to_codebook", "quant_conv"), ("from_codebook", "post_quant_conv")])
    rules.append(Rule(("quantizer.codebook",), "quantize.embedding.weight"))
    return rules + (decoder_rules(config.convs, names) if decodes else [])


def autoencoder_kl_rules(config: AutoencoderKLConfig, names: Dialect = DIFFUSERS) -> list[Rule]:
    """Of an `AutoencoderKL`, but for what it measures."""
    rules = encoder_rules(config.convs, names) + decoder_rules(config.convs, names)
    return rules + same([("to_moments", "quant_conv"), ("from_latents", "post_quant_conv")])


def dall_e_rules(config: DiscreteVAEConfig) -> list[Rule]:
    """Of a `DiscreteVAE`, but for what it counts: the two modules of dall_e, their names behind "encoder." and
    "decoder."."""
    rules = []
    for half, first, last in (("encoder", "conv_in", "to_logits"), ("decoder", "from_codes", "conv_out")):
        widths = [config.width * m for m in config.multipliers]
        widths, enters = (widths, widths[0]) if half == "encoder" else (widths[::-1], config.decoder_width)
        pairs = [(first, f"{half}.blocks.input"), (last, f"{half}.blocks.output.conv")]
        for g, (a, b) in enumerate(zip((enters, *widths[:-1]), widths, strict=True)):
            for i in range(config.depth):
                ours, theirs = f"{half}.groups.{g}.{i}", f"{half}.blocks.group_{g + 1}.block_{i + 1}"
                pairs += [(f"{ours}.convs.{c}", f"{theirs}.res_path.conv_{c + 1}") for c in range(4)]
                pairs += [(f"{ours}.shortcut", f"{theirs}.id_path")] if i == 0 and a != b else []
        rules += [Rule((f"{a}.{s}",), f"{b}.{t}") for a, b in pairs for s, t in (("weight", "w"), ("bias", "b"))]
    return rules


def flava_codebook_rules(config: DiscreteVAEConfig) -> list[Rule]:
    """Of the encoder of a `DiscreteVAE`, which is transformers' `FlavaImageCodebook`."""
    found = []
    for rule in dall_e_rules(config):
        if not rule.theirs.startswith("encoder."):
            continue
        theirs = rule.theirs.removeprefix("encoder.").replace(".block_", ".group.block_")
        theirs = theirs.replace(".res_path.", ".res_path.path.")
        found.append(Rule(rule.ours, {"w": theirs[:-1] + "weight", "b": theirs[:-1] + "bias"}[theirs[-1]]))
    return found


def filled(codec: Codec, rules: list[Rule], theirs: Mapping[str, Tensor]) -> None:
    """Put their weights into `codec`, every tensor that the rules name; what it counts stays. A codebook has begun."""
    known = {n for rule in rules for n in rule.ours}
    own = codec.state_dict()
    state = own | to_ours(rules, theirs, {n: own[n].shape for n in known})
    state |= {n: torch.ones_like(t) for n, t in own.items() if n.endswith("quantizer.begun")}
    codec.load_state_dict(state)


def theirs_of(codec: Codec, rules: list[Rule]) -> dict[str, Tensor]:
    """Their tensors from `codec`, as far as the rules go."""
    known = {n for rule in rules for n in rule.ours}
    return to_theirs(rules, {n: t for n, t in codec.state_dict().items() if n in known})
