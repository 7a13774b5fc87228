"""Rotary position embedding: queries and keys are turned by angles that grow with their position."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Rotary(NamedTuple):
    """Cosine and sine of the angles of each token, half a head wide, in float32."""

    cos: Float[Tensor, "#b s h"]
    sin: Float[Tensor, "#b s h"]


def rotary(positions: Int64[Tensor, "#b s"], head_width: int, theta: float = 10_000.0) -> Rotary:
    """The angles position * theta^(-2j/k) for j < k/2 (Su et al., 2021, arXiv:2104.09864, eq. 15)."""
    steps = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * theta ** (-steps / head_width)
    return Rotary(angles.cos(), angles.sin())


def rotate(x: Float[Tensor, "b n s k"], by: Rotary) -> Float[Tensor, "b n s k"]:
    """Each head's numbers turned in pairs (j, j + k/2), the order of LLaMA's public weights; of x's type."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = by.cos[:, None], by.sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
