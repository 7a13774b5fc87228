"""The tensor names of OpenAI's CLIP, which open_clip kept, as rules over ours."""

import torch
from torch import Tensor

from diptych.checkpoints.key_map import Rule, joined, same
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.vision_transformer import VisionTransformerConfig

IGNORED = r"(^|\.)(input_resolution|context_length|vocab_size|attn_mask|position_ids)$"
"""Names in such checkpoints that hold no weights."""


def block_rules(ours: str, theirs: str, layer_scale: bool = False) -> list[Rule]:
    """One transformer block; queries, keys and values are one matrix there."""
    pairs = [
        (f"{ours}.norm_1", f"{theirs}.ln_1"),
        (f"{ours}.attention.out_proj", f"{theirs}.attn.out_proj"),
        (f"{ours}.norm_2", f"{theirs}.ln_2"),
        (f"{ours}.mlp.fc_1", f"{theirs}.mlp.c_fc"),
        (f"{ours}.mlp.fc_2", f"{theirs}.mlp.c_proj"),
    ]
    scales = [Rule((f"{ours}.scale_{i}",), f"{theirs}.ls_{i}.gamma") for i in (1, 2)] if layer_scale else []
    return same(pairs) + joined(f"{ours}.attention", lambda s: f"{theirs}.attn.in_proj_{s}") + scales


def vit_rules(config: VisionTransformerConfig) -> list[Rule]:
    """The image tower as a vision transformer with a CLS token."""
    us, them = "image_tower", "visual"
    rules = [
        Rule((f"{us}.patch_embed.weight",), f"{them}.conv1.weight"),
        Rule((f"{us}.cls_token",), f"{them}.class_embedding"),
        Rule((f"{us}.position_embed",), f"{them}.positional_embedding"),
        Rule((f"{us}.projection.weight",), f"{them}.proj", kind="transposed"),
        *same([(f"{us}.norm_post", f"{them}.ln_post")]),
    ]
    if config.norm_pre:
        rules += same([(f"{us}.norm_pre", f"{them}.ln_pre")])
    for n in range(config.depth):
        rules += block_rules(f"{us}.blocks.{n}", f"{them}.transformer.resblocks.{n}", bool(config.layer_scale))
    return rules


def resnet_rules(config: ModifiedResNetConfig) -> list[Rule]:
    """The image tower as CLIP's ResNet; batch-norm statistics included."""
    us, them = "image_tower", "visual"
    pairs = []
    for i in (1, 2, 3):
        pairs.append((f"{us}.conv_{i}", f"{us}.norm_{i}", f"{them}.conv{i}", f"{them}.bn{i}"))
    for stage, depth in enumerate(config.depths, 1):
        for n in range(depth):
            a, b = f"{us}.layer_{stage}.{n}", f"{them}.layer{stage}.{n}"
            pairs += [(f"{a}.conv_{i}", f"{a}.norm_{i}", f"{b}.conv{i}", f"{b}.bn{i}") for i in (1, 2, 3)]
            if n == 0:  # the first block of each stage widens its input
                pairs.append((f"{a}.shortcut_conv", f"{a}.shortcut_norm", f"{b}.downsample.0", f"{b}.downsample.1"))
    rules = [Rule((f"{us}.attention_pool.position_embed",), f"{them}.attnpool.positional_embedding")]
    for name in "qkv":
        rules += same([(f"{us}.attention_pool.{name}_proj", f"{them}.attnpool.{name}_proj")])
    rules += same([(f"{us}.attention_pool.out_proj", f"{them}.attnpool.c_proj")])
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for conv, norm, their_conv, their_norm in pairs:
        rules += same([(conv, their_conv)], ("weight",)) + same([(norm, their_norm)], statistics)
    return rules


def text_rules(config: TextTransformerConfig, prefix: str = "") -> list[Rule]:
    """The text tower; `prefix` is "text." where open_clip keeps it in a module of its own."""
    us = "text_tower"
    rules = [
        Rule((f"{us}.token_embed.weight",), f"{prefix}token_embedding.weight"),
        Rule((f"{us}.position_embed",), f"{prefix}positional_embedding"),
        *same([(f"{us}.norm_final", f"{prefix}ln_final")]),
    ]
    if config.projection == "linear":
        rules.append(Rule((f"{us}.projection.weight",), f"{prefix}text_projection", kind="transposed"))
    elif config.projection == "linear_bias":
        rules += same([(f"{us}.projection", f"{prefix}text_projection")])
    for n in range(config.depth):
        rules += block_rules(f"{us}.blocks.{n}", f"{prefix}transformer.resblocks.{n}", bool(config.layer_scale))
    return rules


def scale_rules(bias: bool, shape: tuple[int, ...] = ()) -> list[Rule]:
    """The learned temperature, and the bias of the sigmoid loss."""
    rules = [Rule(("log_logit_scale",), "logit_scale", shape=shape)]
    return [*rules, Rule(("logit_bias",), "logit_bias", shape=shape)] if bias else rules


def with_counters(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """`theirs` with a zero batch counter beside each running mean that has none (archives of 2021 lack them)."""
    means = [name.removesuffix("running_mean") for name in theirs if name.endswith(".running_mean")]
    return {f"{name}num_batches_tracked": torch.tensor(0) for name in means} | theirs
