import torch

from diptych.nn.attention import Attention
from diptych.nn.block import BlockConfig, TransformerBlock
from diptych.nn.norm import HeadNorm, build_head_norm, build_norm


def test_layer_norm_by_hand() -> None:
    x = torch.randn(3, 4, 8)
    by_hand = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 0.5).sqrt()
    torch.testing.assert_close(build_norm("layer", 8, 0.5)(x), by_hand)


def test_rms_norm_by_hand() -> None:
    x = torch.randn(3, 4, 8)
    by_hand = x / (x.square().mean(-1, keepdim=True) + 0.5).sqrt()
    torch.testing.assert_close(build_norm("rms", 8, 0.5)(x), by_hand)


def test_a_norm_of_heads_is_a_layer_norm_for_each() -> None:
    x, norm = torch.randn(2, 3, 5, 4), build_head_norm("layer_by_head", 3, 4, 1e-3)
    assert isinstance(norm, HeadNorm)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    for head in range(3):
        alone = build_norm("layer", 4, 1e-3)
        alone.load_state_dict({"weight": norm.weight[head], "bias": norm.bias[head]})
        torch.testing.assert_close(norm(x)[:, head], alone(x[:, head]))


def test_a_block_of_one_norm_may_have_another_on_queries_and_keys() -> None:
    kinds = {True: torch.nn.RMSNorm, "layer": torch.nn.LayerNorm, "layer_by_head": HeadNorm}
    for qk, kind in kinds.items():
        block = TransformerBlock(BlockConfig(width=8, heads=4, kv_heads=2, norm="rms", qk_norm=qk))
        attention = block.attention
        assert isinstance(attention, Attention)
        assert type(attention.q_norm) is kind
        assert isinstance(block.norm_1, torch.nn.RMSNorm)
        block(torch.randn(1, 3, 8))
    assert TransformerBlock(BlockConfig(width=8, heads=4)).attention.q_norm is None
