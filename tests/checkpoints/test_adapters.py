import pytest
import torch
from torch import nn

from diptych.checkpoints.adapters import adapter_scale, is_adapter, merged
from diptych.core.errors import CheckpointError


def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "a.q_proj.base_layer.weight": torch.randn(6, 4),
        "a.q_proj.base_layer.bias": torch.randn(6),
        "a.q_proj.lora_A.default.weight": torch.randn(2, 4),
        "a.q_proj.lora_B.default.weight": torch.randn(6, 2),
        "a.norm.weight": torch.randn(4),
    }


def test_merged_weights_are_the_sum():
    state = _state()
    found = merged(state, 0.5)
    assert set(found) == {"a.q_proj.weight", "a.q_proj.bias", "a.norm.weight"}
    up, down = state["a.q_proj.lora_B.default.weight"], state["a.q_proj.lora_A.default.weight"]
    torch.testing.assert_close(found["a.q_proj.weight"], state["a.q_proj.base_layer.weight"] + 0.5 * up @ down)
    assert torch.equal(found["a.q_proj.bias"], state["a.q_proj.base_layer.bias"])
    assert [n for n in state if is_adapter(n)] == list(state)[2:4]


def test_an_adapter_without_its_map_is_refused():
    state = _state()
    del state["a.q_proj.base_layer.weight"]
    with pytest.raises(CheckpointError, match=r"a\.q_proj\.lora_A\.default\.weight has none"):
        merged(state, 1.0)


def test_models_without_adapters_have_no_scale():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert adapter_scale(model) is None
    for layer, scale in zip(model, (1.0, 2.0), strict=True):
        layer.lora_A, layer.scaling = nn.Linear(2, 2), {"default": scale}
    with pytest.raises(CheckpointError, match="must have one scale"):
        adapter_scale(model)
