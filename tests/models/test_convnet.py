from typing import Any

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.convnet import ConvNet, ConvNetConfig
from tests.models.towers import EMBED, stir
from tests.reference import convnet as reference

CONFIG = ConvNetConfig(widths=(8, 16, 16), depths=(0, 2, 1), pool_norm="batch")


def tower(**changes: Any) -> ConvNet:
    made = CONFIG.replace(**changes).build(32, EMBED)
    stir(made)
    return made.eval()


def test_it_equals_the_plain_twin_in_value_and_gradient() -> None:
    made, x = tower(), torch.randn(3, 3, 32, 32)
    weights = dict(made.named_buffers()) | dict(made.named_parameters())
    ours, theirs = made(x), reference.convnet(x, weights, CONFIG.depths)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    toward = torch.randn_like(ours)
    some = [p for n, p in made.named_parameters()]
    for a, b in zip(
        torch.autograd.grad((ours * toward).sum(), some),
        torch.autograd.grad((theirs * toward).sum(), some),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"block": "inverted", "activation": "gelu", "downsample": "patch", "pooling": "attention"},
        {"norm": "group", "downsample": "max", "pooling": "mean_max", "pool_norm": "layer"},
        {"stem_kernel": 4, "stem_stride": 4, "activation": "silu", "pool_norm": "none", "projection": "linear_bias"},
    ],
)
def test_every_option_runs_and_learns(changes: dict[str, Any]) -> None:
    made, x = tower(**changes), torch.randn(4, 3, 32, 32)
    side = 32 // made.config.stride
    assert made.tokens(x).shape == (4, side * side, 16)
    torch.testing.assert_close(made(x[:1]), made(x)[:1], atol=1e-5, rtol=1e-4)
    (made.train()(x) * torch.randn(4, EMBED)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_group_norm_does_not_couple_images() -> None:
    made, x = tower(norm="group", pool_norm="layer").train(), torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(made(x[:1]), made(x)[:1], atol=1e-5, rtol=1e-4)


def test_pooling_by_hand() -> None:
    x = torch.randn(2, 3, 32, 32)
    made = tower(pooling="mean_max", pool_norm="none", projection="none", widths=(8, 16, 8))
    tokens = made.tokens(x)
    torch.testing.assert_close(made(x), torch.cat([tokens.mean(1), tokens.amax(1)], 1))
    made = tower(pooling="attention", pool_norm="none", projection="none")
    tokens = made.tokens(x)
    assert made.pool_score is not None
    weights = made.pool_score(tokens).softmax(1)
    torch.testing.assert_close(made(x), torch.einsum("bpi,bpd->bd", weights, tokens))


def test_blocks_start_as_the_identity() -> None:
    fresh = CONFIG.build(32, EMBED)
    x = torch.rand(2, 16, 4, 4)
    assert torch.equal(fresh.stages[1].blocks(x), x)
    inverted = CONFIG.replace(block="inverted").build(32, EMBED)
    assert torch.equal(inverted.stages[1].blocks(x), x)


def test_memory_format_does_not_change_the_function() -> None:
    made, x = tower(), torch.randn(2, 3, 32, 32)
    plain = tower(channels_last=False)
    plain.load_state_dict(made.state_dict())
    torch.testing.assert_close(made(x), plain(x), atol=1e-5, rtol=1e-4)


def test_dropout_rests_in_eval() -> None:
    made, x = tower(dropout=0.5, norm="group", pool_norm="none"), torch.randn(2, 3, 32, 32)
    assert torch.equal(made(x), made(x))
    assert not torch.equal(made.train()(x), made(x))


def test_a_single_image_cannot_be_normalised_over_the_batch() -> None:
    with pytest.raises(ConfigError, match="at least 2 images to train under batch norm; got 1"):
        tower().train()(torch.randn(1, 3, 32, 32))


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="widths and depths must name the same stages"):
        ConvNetConfig(widths=(8, 16), depths=(1,))
    with pytest.raises(ConfigError, match="widths must be multiples of 16 for norm 'group'; got \\(8, 24\\)"):
        ConvNetConfig(widths=(8, 24), depths=(1, 1), norm="group")
    with pytest.raises(ConfigError, match="resolution must be at least 8, the stride of this ConvNet; got 4"):
        CONFIG.build(4, EMBED)
    with pytest.raises(ConfigError, match=r"ConvNetConfig.width must equal embed_dim where projection is 'none'"):
        CONFIG.replace(projection="none", widths=(8, 16, 24)).build(32, EMBED)
