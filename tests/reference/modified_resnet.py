"""CLIP's ResNet in evaluation, in a few plain lines that read a state dict by name."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference.attention import self_attention

Weights = dict[str, Tensor]


def conv_norm(x: Tensor, w: Weights, conv: str, norm: str, stride: int = 1) -> Tensor:
    kernel = w[f"{conv}.weight"]
    x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    mean, var, gain, bias = (w[f"{norm}.{n}"].view(-1, 1, 1) for n in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / (var + 1e-5).sqrt() * gain + bias


def halve(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def bottleneck(x: Tensor, w: Weights, at: str, shrink: bool) -> Tensor:
    y = conv_norm(x, w, at + "conv_1", at + "norm_1").clamp(min=0)
    y = conv_norm(y, w, at + "conv_2", at + "norm_2").clamp(min=0)
    y = conv_norm(halve(y) if shrink else y, w, at + "conv_3", at + "norm_3")
    if at + "shortcut_conv.weight" in w:
        x = conv_norm(halve(x) if shrink else x, w, at + "shortcut_conv", at + "shortcut_norm")
    return (x + y).clamp(min=0)


def modified_resnet(x: Tensor, w: Weights, depths: tuple[int, ...], heads: int) -> Tensor:
    """Pooled and projected vectors of normalised float pixels at the resolution of the weights."""
    for i in (1, 2, 3):
        x = conv_norm(x, w, f"conv_{i}", f"norm_{i}", stride=2 if i == 1 else 1).clamp(min=0)
    x = halve(x)
    for stage, depth in enumerate(depths, start=1):
        for i in range(depth):
            x = bottleneck(x, w, f"layer_{stage}.{i}.", shrink=stage > 1 and i == 0)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(1, keepdim=True), x], 1) + w["attention_pool.position_embed"]
    out = w["attention_pool.out_proj.weight"], w["attention_pool.out_proj.bias"]
    square = {
        **w,
        "attention_pool.out_proj.weight": torch.eye(x.shape[-1]),
        "attention_pool.out_proj.bias": torch.zeros(1),
    }
    return self_attention(x, square, "attention_pool.", heads, None)[:, 0] @ out[0].T + out[1]
