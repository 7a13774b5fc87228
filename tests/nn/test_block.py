from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.nn import mask
from diptych.nn.block import (
    BlockConfig,
    TransformerBlock,
    build_blocks,
    drop_path,
    init_default,
    init_scaled,
    through_blocks,
)
from diptych.nn.mask import Layout

TINY = BlockConfig(width=8, depth=2, heads=2)


def block(**changes: object) -> TransformerBlock:
    made = TransformerBlock(TINY.replace(**changes))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.1)  # ones and zeros hide mistakes
    return made


def test_names_are_those_of_the_house() -> None:
    names = {n.rpartition(".")[0] for n, _ in TransformerBlock(TINY).named_parameters()}
    assert names == {
        "norm_1",
        "norm_2",
        "mlp.fc_1",
        "mlp.fc_2",
        *(f"attention.{n}_proj" for n in ("q", "k", "v", "out")),
    }


def by_hand(b: TransformerBlock, x: Tensor, kind: str) -> Tensor:
    if kind == "post":
        x = b.norm_1(x + b.attention(x))
        return b.norm_2(x + b.mlp(x))
    if kind == "swin":
        x = x + b.norm_1(b.attention(x))
        return x + b.norm_2(b.mlp(x))
    x = x + b.attention(b.norm_1(x))
    return x + b.mlp(b.norm_2(x))


@pytest.mark.parametrize("kind", ["pre", "post", "sub", "swin"])
def test_norm_positions(kind: str) -> None:
    made, x = block(norm_position=kind), torch.randn(2, 5, 8)
    torch.testing.assert_close(made(x), by_hand(made, x, kind))
    inner = [n for n, _ in made.named_parameters() if "inner_norm" in n]
    assert bool(inner) == (kind == "sub")


def test_sub_norms_stand_before_the_outputs() -> None:
    made, x = block(norm_position="sub"), torch.randn(2, 5, 8)
    seen: list[Tensor] = []
    made.mlp.fc_2.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    made.attention.out_proj.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    for inner in (made.attention.inner_norm, made.mlp.inner_norm):
        assert isinstance(inner, nn.LayerNorm)
        nn.init.ones_(inner.weight)
        nn.init.zeros_(inner.bias)
    made(x)
    assert all(s.mean(-1).abs().max() < 1e-5 for s in seen)
    assert len(seen) == 2


def test_layer_scale_multiplies_each_branch() -> None:
    made, x = block(layer_scale=0.5), torch.randn(2, 5, 8)
    h = x + made.scale_1 * made.attention(made.norm_1(x))
    torch.testing.assert_close(made(x), h + made.scale_2 * made.mlp(made.norm_2(h)))


def test_plain_cross_attention_stands_in_the_middle() -> None:
    made = block(cross_attention="plain", context_width=6)
    x, context = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    h = x + made.attention(made.norm_1(x))
    h = h + made.cross_attention(made.norm_cross(h), context=context)
    torch.testing.assert_close(made(x, None, context), h + made.mlp(made.norm_2(h)))
    torch.testing.assert_close(made(x), by_hand(made, x, "pre"))


def test_masks_reach_both_attentions() -> None:
    made = block(cross_attention="plain")
    x, context = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    sees_two = mask.padding().plan(Layout(3), Layout.of_lengths(torch.tensor([2]), 4))
    out = made(x, mask.causal().plan(Layout(3)), context, sees_two)
    torch.testing.assert_close(out[:, :1], made(x[:, :1], None, context[:, :2]))


def test_drop_path_keeps_the_mean_and_replays() -> None:
    x = torch.ones(4000, 1, 1)
    state = torch.get_rng_state()
    out = drop_path(x, 0.25, training=True)
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)
    torch.set_rng_state(state)
    assert torch.equal(drop_path(x, 0.25, training=True), out)
    assert drop_path(x, 0.25, training=False) is x


def test_drop_path_grows_with_depth_and_rests_in_eval() -> None:
    blocks = build_blocks(TINY.replace(depth=3, drop_path=0.4))
    assert [b.rate for b in blocks] == [0.0, 0.2, 0.4]
    assert [b.rate for b in build_blocks(TINY.replace(depth=1, drop_path=0.4))] == [0.0]
    x = torch.randn(2, 5, 8)
    last = blocks[2].eval()
    assert torch.equal(last(x), last(x))


def test_scaled_init_has_the_documented_spread() -> None:
    blocks = build_blocks(BlockConfig(width=128, depth=3, heads=4))
    init_scaled(blocks, 128, 3)
    b = blocks[1]
    assert b.attention.q_proj.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert b.attention.out_proj.weight.std().item() == pytest.approx(128**-0.5 * 6**-0.5, rel=0.05)
    assert b.mlp.fc_1.weight.std().item() == pytest.approx(256**-0.5, rel=0.05)
    assert b.mlp.fc_2.weight.std().item() == pytest.approx(128**-0.5 * 6**-0.5, rel=0.05)
    assert b.attention.v_proj.bias.abs().max() == 0


def test_default_init_draws_what_torch_draws() -> None:
    peer = nn.MultiheadAttention(128, 4)
    blocks = build_blocks(BlockConfig(width=128, depth=1, heads=4))
    init_default(blocks)
    ours = blocks[0].attention
    assert ours.k_proj.weight.abs().max().item() == pytest.approx(peer.in_proj_weight.abs().max().item(), rel=1e-3)
    assert ours.out_proj.weight.std().item() == pytest.approx(peer.out_proj.weight.std().item(), rel=0.05)
    assert ours.out_proj.bias.abs().max() == peer.out_proj.bias.abs().max() == 0


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="width must be a multiple of heads; got width 10, heads 4"):
        BlockConfig(width=10, heads=4)
    with pytest.raises(ConfigError, match="drop_path must be less than 1; got"):
        BlockConfig(drop_path=1.0)
    assert BlockConfig(width=1152, heads=16, mlp_ratio=3.7362).mlp_width == 4304


@pytest.mark.parametrize("position", ["pre", "post", "sub", "swin"])
@pytest.mark.parametrize("packed", [False, True])
def test_only_some_outputs_are_those_of_all_in_value_gradient_and_draws(position: str, packed: bool) -> None:
    """Also under drop path, whose draws are one a sample. In float64, so that only the sums' order differs."""
    blocks = build_blocks(TINY.replace(norm_position=position, layer_scale=0.5, drop_path=0.4)).double().train()
    x = torch.randn(4, 6, 8, dtype=torch.float64, requires_grad=True)
    plan = mask.causal().plan(Layout(6))
    if packed:
        segment = torch.tensor([0, 0, 1, 1, 1, 2]).expand(4, -1) + 3 * torch.arange(4)[:, None]
        plan = (mask.block_diagonal() & mask.causal()).plan(Layout(6, segment=segment))
        plan = replace(plan, sample=segment, samples=12)
    only = torch.tensor([1, 4, 5, 17, 23, 12])
    at = [x, *blocks.parameters()]
    torch.manual_seed(1)
    full = through_blocks(blocks, x, plan).flatten(0, 1)[only]
    torch.manual_seed(1)
    some = through_blocks(blocks, x, plan, only)
    torch.testing.assert_close(some, full, atol=1e-12, rtol=1e-12)
    toward = torch.randn_like(full)
    for a, b in zip(
        torch.autograd.grad((some * toward).sum(), at), torch.autograd.grad((full * toward).sum(), at), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)


def test_without_blocks_and_with_context_only_some_outputs_are_picked() -> None:
    x, only = torch.randn(2, 3, 8), torch.tensor([5, 0])
    assert torch.equal(through_blocks(nn.ModuleList(), x, None, only), x.flatten(0, 1)[only])
    context = torch.randn(2, 4, 8)
    made = block(cross_attention="plain")
    full = made(x, context=context).flatten(0, 1)[only]
    torch.testing.assert_close(made(x, context=context, only=only), full)
