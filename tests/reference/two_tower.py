"""CLIP's two towers (ViT, causal text) in a few plain lines that read a state dict by name. Padding is never cut."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference.attention import self_attention

Weights = dict[str, Tensor]


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (var + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def transformer(x: Tensor, w: Weights, name: str, depth: int, heads: int, allowed: Tensor | None) -> Tensor:
    for i in range(depth):
        at = f"{name}.blocks.{i}."
        x = x + self_attention(norm(x, w, at + "norm_1"), w, at + "attention.", heads, allowed)
        y = norm(x, w, at + "norm_2") @ w[at + "mlp.fc_1.weight"].T + w[at + "mlp.fc_1.bias"]
        y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
        x = x + y @ w[at + "mlp.fc_2.weight"].T + w[at + "mlp.fc_2.bias"]
    return x


def image(pixels: Tensor, w: Weights, depth: int, heads: int, patch: int) -> Tensor:
    """Unit vectors of normalised float pixels (b, 3, h, w)."""
    x = F.conv2d(pixels, w["image_tower.patch_embed.weight"], stride=patch).flatten(2).transpose(1, 2)
    cls = w["image_tower.cls_token"].expand(len(x), 1, -1)
    x = torch.cat([cls, x], 1) + w["image_tower.position_embed"]
    x = transformer(norm(x, w, "image_tower.norm_pre"), w, "image_tower", depth, heads, None)
    x = norm(x, w, "image_tower.norm_post")[:, 0] @ w["image_tower.projection.weight"].T
    return x / x.square().sum(-1, keepdim=True).sqrt()


def text(tokens: Tensor, lengths: Tensor, w: Weights, depth: int, heads: int) -> Tensor:
    """Unit vectors of token ids, padded to the whole context."""
    x = w["text_tower.token_embed.weight"][tokens] + w["text_tower.position_embed"]
    causal = torch.ones(tokens.shape[1], tokens.shape[1]).tril().bool().expand(len(x), -1, -1)
    x = norm(transformer(x, w, "text_tower", depth, heads, causal), w, "text_tower.norm_final")
    x = torch.stack([row[n - 1] for row, n in zip(x, lengths, strict=True)]) @ w["text_tower.projection.weight"].T
    return x / x.square().sum(-1, keepdim=True).sqrt()
