"""From many tokens to one vector."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.nn.attention import Attention, attend
from diptych.nn.block import init_default
from diptych.nn.embed import resize_position_embed
from diptych.nn.mlp import MLP, Activation
from diptych.nn.norm import build_norm

Projection = Literal["linear", "linear_bias", "none"]


def take_last(x: Float[Tensor, "b t d"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """The last real token of each row (EOS); zeros where there is none."""
    return torch.where(lengths[:, None] > 0, x[torch.arange(x.shape[0], device=x.device), lengths - 1], 0)


def take_first(x: Float[Tensor, "b t d"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """The first token of each row (CLS); zeros where there is none."""
    return torch.where(lengths[:, None] > 0, x[:, 0], 0)


def masked_mean(x: Float[Tensor, "b t d"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """The mean of each row's real tokens, summed in fp32 or better; zeros where there are none."""
    real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # (b, t)
    total = torch.where(real[:, :, None], x, 0).sum(1, dtype=torch.promote_types(x.dtype, torch.float32))
    return (total / lengths.clamp(min=1)[:, None]).to(x.dtype)


class MapPool(nn.Module):
    """Multi-head attention pooling (Zhai et al., 2022; SigLIP): one learned probe attends to all tokens, then
    x + MLP(norm(x)). First weights: Xavier-uniform, MLP biases N(0, 1e-6), as big_vision draws them.
    """

    def __init__(self, width: int, heads: int, mlp_width: int, activation: Activation, eps: float) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, width))
        self.attention = Attention(width, heads)
        self.norm = build_norm("layer", width, eps)
        self.mlp = MLP(width, mlp_width, activation)
        nn.init.xavier_uniform_(self.probe)
        for linear in (m for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (m for m in self.mlp.modules() if isinstance(m, nn.Linear)):
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: Float[Tensor, "b p d"]) -> Float[Tensor, "b d"]:
        pooled = self.attention(self.probe.expand(x.shape[0], 1, -1), context=x)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


class AttentionPooler(nn.Module):
    """As many tokens as there are learned queries, each of which attends to all of x (Lee et al., 2019, section 3.2;
    CoCa, Yu et al., 2022, section 3.2): norm_post(attention(norm_q(query), norm_k(x))), with a projection each.

    First weights: queries N(0, 1), projections as `init_default` draws them.
    """

    def __init__(self, queries: int, width: int, context_width: int, heads: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(queries, width))
        self.norm_q, self.norm_k = build_norm("layer", width, eps), build_norm("layer", context_width, eps)
        self.attention = Attention(width, heads, context_width=context_width)
        self.norm_post = build_norm("layer", width, eps)
        init_default([self])

    def forward(self, x: Float[Tensor, "b p c"]) -> Float[Tensor, "b n d"]:
        query = self.norm_q(self.query).expand(x.shape[0], -1, -1)
        return self.norm_post(self.attention(query, context=self.norm_k(x)))


class AttentionPool(nn.Module):
    """CLIP's pooling of a convolutional map: the mean token queries itself and all places, with learned positions.

    `side` is the side of the map at the resolution of training; other sizes interpolate the positions.
    First weights: N(0, 1/width), and positions N(0, 1/width), as OpenAI draws them.
    """

    def __init__(self, width: int, heads: int, side: int, out_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.position_embed = nn.Parameter(torch.randn(side * side + 1, width) * width**-0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, out_width)
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.normal_(linear.weight, std=width**-0.5)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e"]:
        positions = resize_position_embed(self.position_embed, (x.shape[2], x.shape[3]), prefix=1)
        x = x.flatten(2).transpose(1, 2)  # (b, p, d)
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + positions.to(x.dtype)
        q, k, v = self._split(self.q_proj(x[:, :1])), self._split(self.k_proj(x)), self._split(self.v_proj(x))
        return self.out_proj(attend(q, k, v).transpose(1, 2).flatten(1))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (b, n, s, k)


def build_projection(kind: Projection, width: int, embed_dim: int, who: str) -> nn.Linear | None:
    """The map from a tower's width to the shared space, N(0, 1/width); None for "none", which needs equal widths."""
    if kind == "none":
        if width != embed_dim:
            raise ConfigError(
                f"{who}.width must equal embed_dim where projection is 'none'; got {width} and {embed_dim}. "
                f"Set projection to 'linear', or make them equal."
            )
        return None
    linear = nn.Linear(width, embed_dim, bias=kind == "linear_bias")
    nn.init.normal_(linear.weight, std=width**-0.5)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear
