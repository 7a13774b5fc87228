"""The text tower one text at a time, each alone and without padding, from its weights by name."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.models.text_transformer import TextTransformer
from tests.reference import attention as reference


def forward(tower: TextTransformer, tokens: Tensor, lengths: Tensor) -> Tensor:
    """What the tower must give, for pre-norm blocks with GELU and any pooling but "last"."""
    return torch.stack([_text(tower, row[:n]) for row, n in zip(tokens, lengths.tolist(), strict=True)])


def _text(tower: TextTransformer, ids: Tensor) -> Tensor:
    c, weights, n = tower.config, dict(tower.named_parameters()), len(ids)
    allowed = torch.ones(1, n, n, dtype=torch.bool)
    x = (tower.token_embed.weight[ids] + tower.position_embed[:n])[None]
    for i in range(c.depth):
        name = f"blocks.{i}"
        y = _norm(weights, f"{name}.norm_1", x)
        seen = allowed.tril() if c.attention == "causal" else allowed
        x = x + reference.self_attention(y, weights, f"{name}.attention.", c.heads, seen)
        y = F.gelu(_linear(weights, f"{name}.mlp.fc_1", _norm(weights, f"{name}.norm_2", x)))
        x = x + _linear(weights, f"{name}.mlp.fc_2", y)
    x = _norm(weights, "norm_final", x[0])
    pooled = {"eos": lambda: x[-1], "cls": lambda: x[0], "mean": lambda: x.mean(0)}[c.pooling]()
    return F.linear(pooled, weights["projection.weight"], weights.get("projection.bias"))


def _linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])
