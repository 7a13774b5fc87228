import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import ConfigError
from diptych.nn.pool import AttentionPool, AttentionPooler, MapPool, build_projection, masked_mean, take_last
from tests.reference import attention as reference


def test_take_last_and_mean_by_hand() -> None:
    x, lengths = torch.randn(3, 5, 4), torch.tensor([5, 1, 3])
    torch.testing.assert_close(take_last(x, lengths), torch.stack([x[0, 4], x[1, 0], x[2, 2]]))
    torch.testing.assert_close(masked_mean(x, lengths), torch.stack([x[0].mean(0), x[1, 0], x[2, :3].mean(0)]))


def test_mean_ignores_even_nan_in_the_padding() -> None:
    x = torch.randn(2, 3, 4)
    x[0, 2] = float("nan")
    x.requires_grad_()
    out = masked_mean(x, torch.tensor([2, 3]))
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_attention_pooler_equals_torch_multihead_attention() -> None:
    pool = AttentionPooler(queries=3, width=8, context_width=6, heads=2)
    with torch.no_grad():
        for p in pool.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    peer = torch.nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
    a = pool.attention
    peer.q_proj_weight, peer.k_proj_weight, peer.v_proj_weight = (x.weight for x in (a.q_proj, a.k_proj, a.v_proj))
    peer.in_proj_bias.data = torch.cat([a.q_proj.bias, a.k_proj.bias, a.v_proj.bias])
    peer.out_proj.load_state_dict(a.out_proj.state_dict())
    x = torch.randn(4, 5, 6)
    y = pool.norm_k(x)
    torch.testing.assert_close(pool(x), pool.norm_post(peer(pool.norm_q(pool.query).expand(4, 3, 8), y, y)[0]))


def test_map_pool_equals_torch_multihead_attention() -> None:
    pool = MapPool(8, 2, 16, "gelu_tanh", 1e-6)
    with torch.no_grad():
        for p in pool.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    peer = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    a = pool.attention
    peer.in_proj_weight.data = torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight])
    peer.in_proj_bias.data = torch.cat([a.q_proj.bias, a.k_proj.bias, a.v_proj.bias])
    peer.out_proj.load_state_dict(a.out_proj.state_dict())
    x = torch.randn(3, 5, 8)
    y = peer(pool.probe.expand(3, 1, 8), x, x)[0]
    y = y + pool.mlp(F.layer_norm(y, (8,), pool.norm.weight, pool.norm.bias, 1e-6))
    torch.testing.assert_close(pool(x), y[:, 0])


def test_attention_pool_is_the_first_row_of_full_attention() -> None:
    pool = AttentionPool(8, 2, side=2, out_width=8).double()
    x = torch.randn(2, 8, 2, 2, dtype=torch.float64)
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.position_embed
    full = reference.self_attention(tokens, pool.state_dict(), "", 2, None)
    torch.testing.assert_close(pool(x), full[:, 0])


def test_attention_pool_takes_other_sizes() -> None:
    assert AttentionPool(8, 2, side=2, out_width=5)(torch.randn(2, 8, 3, 4)).shape == (2, 5)


def test_projections() -> None:
    assert build_projection("none", 4, 4, "XConfig") is None
    plain, biased = build_projection("linear", 4, 6, "XConfig"), build_projection("linear_bias", 4, 6, "XConfig")
    assert plain is not None
    assert plain.bias is None
    assert biased is not None
    assert biased.bias.abs().max() == 0
    with pytest.raises(
        ConfigError, match=r"XConfig.width must equal embed_dim where projection is 'none'; got 4 and 6"
    ):
        build_projection("none", 4, 6, "XConfig")
