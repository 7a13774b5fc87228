"""The norms that a block may be built with."""

from typing import Literal

from torch import nn

NormKind = Literal["layer", "rms"]


def build_norm(kind: NormKind, width: int, eps: float) -> nn.Module:
    """A norm over the last dimension, gain one (and bias zero, for "layer").

    "layer" is layer normalisation (Ba et al., 2016), "rms" divides by the root mean square only (Zhang and Sennrich,
    2019). `eps` belongs to the function: 1e-5 in CLIP, 1e-6 in SigLIP, 1e-12 in BERT.
    """
    return nn.RMSNorm(width, eps=eps) if kind == "rms" else nn.LayerNorm(width, eps=eps)
