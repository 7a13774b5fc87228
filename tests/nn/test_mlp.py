import math

import pytest
import torch

from diptych.nn.mlp import MLP, activate

BY_HAND = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "swiglu": lambda x: x / (1 + math.exp(-x)),
    "relu": lambda x: max(x, 0.0),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_activations_by_hand(kind: str) -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = torch.tensor([BY_HAND[kind](v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(activate(x, kind), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["gelu", "swiglu"])
def test_mlp_by_hand(kind: str) -> None:
    mlp = MLP(4, 6, kind, inner_norm="layer")  # type: ignore[arg-type]
    x = torch.randn(2, 3, 4)
    h = mlp.fc_1(x)
    h = torch.nn.functional.gelu(h) if mlp.fc_gate is None else torch.nn.functional.silu(mlp.fc_gate(x)) * h
    assert mlp.inner_norm is not None
    torch.testing.assert_close(mlp(x), mlp.fc_2(mlp.inner_norm(h)))


def test_names_and_bias() -> None:
    assert sorted(dict(MLP(4, 6, "swiglu", bias=False).named_parameters())) == [
        "fc_1.weight",
        "fc_2.weight",
        "fc_gate.weight",
    ]
