"""The norms that a block may be built with."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NormKind = Literal["layer", "rms"]
HeadNormKind = Literal["layer", "rms", "layer_by_head"]


def build_norm(kind: NormKind, width: int, eps: float) -> nn.Module:
    """A norm over the last dimension, gain one (and bias zero, for "layer").

    "layer" is layer normalisation (Ba et al., 2016), "rms" divides by the root mean square only (Zhang and Sennrich,
    2019). `eps` belongs to the function: 1e-5 in CLIP, 1e-6 in SigLIP, 1e-12 in BERT.
    """
    return nn.RMSNorm(width, eps=eps) if kind == "rms" else nn.LayerNorm(width, eps=eps)


class HeadNorm(nn.LayerNorm):
    """Layer normalisation of each head's numbers, whose gain and bias (n k) are each head's own.

    Chameleon's public 34B weights are so: each of its devices had a norm for its heads.
    """

    def __init__(self, heads: int, head_width: int, eps: float) -> None:
        super().__init__((heads, head_width), eps=eps)

    def forward(self, x: Float[Tensor, "b n s k"]) -> Float[Tensor, "b n s k"]:
        return F.layer_norm(x, x.shape[-1:], eps=self.eps) * self.weight[:, None] + self.bias[:, None]


def build_head_norm(kind: HeadNormKind, heads: int, head_width: int, eps: float) -> nn.Module:
    """A norm on the last dimension of (b n s k): one for all heads, or with "layer_by_head" a gain for each."""
    return HeadNorm(heads, head_width, eps) if kind == "layer_by_head" else build_norm(kind, head_width, eps)
