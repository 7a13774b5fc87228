"""The feed-forward half of a block."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diptych.nn.norm import NormKind, build_norm

Activation = Literal["gelu", "quick_gelu", "gelu_tanh", "swiglu", "relu"]


def activate(x: Float[Tensor, "*s"], kind: Activation) -> Float[Tensor, "*s"]:
    """`x` through the nonlinearity; for "swiglu" this is its gate's SiLU.

    "gelu" is exact, "gelu_tanh" the approximation of JAX and SigLIP, "quick_gelu" the x * sigmoid(1.702 x) of OpenAI's
    weights: they differ by up to 2e-2, so the kind belongs to the weights.
    """
    if kind == "gelu":
        return F.gelu(x)
    if kind == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if kind == "quick_gelu":
        return x * (1.702 * x).sigmoid()
    if kind == "swiglu":
        return F.silu(x)
    return F.relu(x)


class MLP(nn.Module):
    """fc_2(activation(fc_1 x)); with "swiglu", fc_2(silu(fc_gate x) * fc_1 x) (Shazeer, 2020).

    `inner_norm` puts a norm before fc_2 (Sub-LN of Magneto and BEiT-3).
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Activation = "gelu",
        bias: bool = True,
        inner_norm: NormKind | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.fc_1 = nn.Linear(width, hidden, bias=bias)
        self.fc_gate = nn.Linear(width, hidden, bias=bias) if activation == "swiglu" else None
        self.inner_norm = None if inner_norm is None else build_norm(inner_norm, hidden, eps)
        self.fc_2 = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "*s d"]) -> Float[Tensor, "*s d"]:
        h = self.fc_1(x)
        h = activate(h, self.activation) if self.fc_gate is None else activate(self.fc_gate(x), self.activation) * h
        if self.inner_norm is not None:
            h = self.inner_norm(h)
        return self.fc_2(h)
