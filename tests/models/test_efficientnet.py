from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.models.efficientnet import EfficientNet, EfficientNetConfig, pad_same, round_width
from tests.models.towers import stir

TINY = EfficientNetConfig(
    widths=(8, 16, 24),
    depths=(1, 2, 2),
    kernels=(3, 3, 5),
    strides=(1, 2, 2),
    expansions=(1, 4, 6),
    stem_width=16,
    head_width=40,
    projection="none",
)


def tower(config: EfficientNetConfig = TINY, embed_dim: int = 40, **changes: Any) -> EfficientNet:
    made = config.replace(**changes).build(64, embed_dim)
    stir(made)
    return made.eval()


def copied_in_order(ours: nn.Module, theirs: nn.Module) -> None:
    """Their tensors become ours: both list the same layers in the same order, under other names."""
    state, own = list(theirs.state_dict().items()), ours.state_dict()
    state = [(n, t) for n, t in state if not n.startswith("classifier")]
    assert len(state) == len(own)
    ours.load_state_dict({name: t for name, (_, t) in zip(own, state, strict=True)})


def lite0(side: int) -> tuple[EfficientNet, nn.Module]:
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    stir(theirs, 0.02)
    ours = EfficientNetConfig.named("lite0").replace(projection="none").build(side, 1280)
    copied_in_order(ours, theirs)
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("side", [64, 79])
def test_lite0_equals_timm_in_value_and_gradient(side: int) -> None:
    # fp32 through fifty layers of convolutions whose kernels differ between memory formats: outputs of order 1
    ours, theirs = lite0(side)
    x = torch.randn(2, 3, side, side)
    mine, yours = ours(x), theirs(x)
    assert mine.std() > 1e-3
    torch.testing.assert_close(mine, yours, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.tokens(x), theirs.forward_features(x).flatten(2).mT, atol=1e-4, rtol=1e-4)
    toward = torch.randn_like(mine)
    (mine * toward).sum().backward()
    (yours * toward).sum().backward()
    pairs = {
        ours.stem.conv.weight: theirs.conv_stem.weight,
        ours.blocks[0].depthwise.conv.weight: theirs.blocks[0][0].conv_dw.weight,
        ours.blocks[3].expand.norm.weight: theirs.blocks[2][0].bn1.weight,
        ours.blocks[15].project.norm.bias: theirs.blocks[6][0].bn3.bias,
        ours.head.conv.weight: theirs.conv_head.weight,
    }
    for a, b in pairs.items():
        assert a.grad is not None
        assert a.grad.abs().max() > 0
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4 * float(b.grad.abs().max()), rtol=1e-3)


def test_b1_equals_timm() -> None:
    theirs = timm.create_model("tf_efficientnet_b1", num_classes=0)
    stir(theirs, 0.02)
    theirs.eval()
    ours = EfficientNetConfig.named("b1").replace(projection="none").build(64, 1280)
    copied_in_order(ours, theirs)
    x = torch.randn(2, 3, 65, 64)
    torch.testing.assert_close(ours.eval()(x), theirs(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "width", "blocks", "millions"), [("b0", 1280, 16, 4.0), ("b7", 2560, 55, 63.8)])
def test_published_sizes(name: Any, width: int, blocks: int, millions: float) -> None:
    with torch.device("meta"):
        made = EfficientNetConfig.named(name).replace(projection="none").build(224, width)
    assert made.width == width
    assert len(made.blocks) == blocks
    assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_padding_is_tensorflows() -> None:
    for side, kernel, stride in ((8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 5, 3), (8, 3, 1), (2, 5, 2)):
        x = torch.ones(1, 1, side, side)
        padded = pad_same(x, kernel, stride)
        assert F.conv2d(padded, torch.ones(1, 1, kernel, kernel), stride=stride).shape[2] == -(-side // stride)
    left = pad_same(torch.ones(1, 1, 4, 5), 3, 2)
    assert left.shape == (1, 1, 5, 7)  # one zero at the end of an even side, one at either end of an odd one
    assert left[0, 0, :, 3].tolist() == [1, 1, 1, 1, 0]
    assert left[0, 0, 1].tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert pad_same(torch.ones(1, 1, 5, 5), 3, 2, even=True)[0, 0, 1].tolist() == [1, 1, 1, 1, 1, 0]


def test_widths_are_rounded_as_published() -> None:
    assert [round_width(w, 1.1) for w in (16, 24, 40, 80, 112, 192, 320)] == [16, 24, 48, 88, 120, 208, 352]
    assert round_width(320, 4.3) == 1376
    assert round_width(3, 1.0) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"squeeze": 0.0, "activation": "relu6", "fixed_ends": True, "width_multiplier": 1.5, "depth_multiplier": 1.5},
        {"head_width": 0, "padding": "even", "projection": "linear"},
        {"stem_stride": 1, "dropout": 0.1, "drop_path": 0.2, "projection": "linear_bias", "channels_last": False},
    ],
)
def test_every_option_runs_and_learns(changes: dict[str, Any]) -> None:
    made, x = tower(embed_dim=40, **changes), torch.randn(4, 3, 32, 32)
    assert made(x).shape == (4, 40)
    torch.testing.assert_close(made(x[:1]), made(x)[:1], atol=1e-5, rtol=1e-4)
    (made.train()(x) * torch.randn(4, 40)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_it_pools_its_tokens() -> None:
    made, x = tower(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(made(x), made.tokens(x).mean(1), atol=1e-6, rtol=1e-5)


def test_memory_format_does_not_change_the_function() -> None:
    made, x = tower(), torch.randn(2, 3, 32, 32)
    plain = tower(channels_last=False)
    plain.load_state_dict(made.state_dict())
    torch.testing.assert_close(made(x), plain(x), atol=1e-5, rtol=1e-4)


def test_strided_convolutions_of_single_channels_are_wide_on_a_cpu() -> None:
    block, x = tower().blocks[1], torch.randn(2, 8, 12, 12)
    assert block.depthwise.wide_on_cpu
    with torch.autocast("cpu", torch.bfloat16):
        half = block.depthwise(block.expand(x))
    assert half.dtype == torch.bfloat16
    wide = block.depthwise(block.expand(x))
    torch.testing.assert_close(half.float(), wide, atol=0.05, rtol=0.05)


def test_skipped_blocks_are_the_identity_and_rest_in_eval() -> None:
    made, x = tower(drop_path=0.9), torch.randn(64, 3, 16, 16)
    assert torch.equal(made(x[:2]), made(x[:2]))
    block, y = made.blocks[4].train(), torch.randn(64, 24, 4, 4)
    assert block.rate == pytest.approx(0.9 * 4 / 5)
    changed: Tensor = (block(y) - y).abs().amax((1, 2, 3)) > 0
    assert 0 < changed.sum() < 64


def test_mistakes_are_answered() -> None:
    with pytest.raises(ConfigError, match="at least 2 images to train under batch norm; got 1"):
        tower().train()(torch.randn(1, 3, 32, 32))
    with pytest.raises(ConfigError, match=r"must name the same stages, at least one; got 2, 3, 3, 3, 3 values"):
        TINY.replace(widths=(8, 16))
    with pytest.raises(ConfigError, match="must be positive and kernels odd"):
        TINY.replace(kernels=(3, 4, 3))
    with pytest.raises(ConfigError, match=r"EfficientNetConfig.width must equal embed_dim where projection is 'none'"):
        TINY.build(32, 16)
