import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.modified_resnet import ModifiedResNet, ModifiedResNetConfig
from tests.models.towers import EMBED, RESOLUTION, stir
from tests.reference import modified_resnet as reference

CONFIG = ModifiedResNetConfig(stem_width=8, depths=(1, 2, 1, 1))


def tower(config: ModifiedResNetConfig = CONFIG) -> ModifiedResNet:
    made = config.build(RESOLUTION, EMBED)
    stir(made)
    return made.eval()


def test_it_equals_the_plain_twin_in_value_and_gradient() -> None:
    made, x = tower(), torch.randn(2, 3, RESOLUTION, RESOLUTION)
    weights = dict(made.named_buffers()) | dict(made.named_parameters())
    ours, theirs = made(x), reference.modified_resnet(x, weights, CONFIG.depths, heads=4)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    toward = torch.randn_like(ours)
    some = [weights[n] for n in ("conv_1.weight", "layer_2.0.shortcut_conv.weight", "attention_pool.q_proj.weight")]
    for a, b in zip(
        torch.autograd.grad((ours * toward).sum(), some),
        torch.autograd.grad((theirs * toward).sum(), some),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_memory_format_does_not_change_the_function() -> None:
    made, x = tower(), torch.randn(2, 3, RESOLUTION, RESOLUTION)
    plain = tower(CONFIG.replace(channels_last=False))
    plain.load_state_dict(made.state_dict())
    torch.testing.assert_close(made(x), plain(x), atol=1e-5, rtol=1e-4)


def test_tokens_are_the_last_map() -> None:
    made = tower()
    assert made.tokens(torch.randn(2, 3, 64, 96)).shape == (2, 6, made.width)
    assert made.width == 256
    assert made.decay_free() == {"attention_pool.position_embed"}


def test_each_block_starts_as_its_shortcut() -> None:
    fresh = CONFIG.build(RESOLUTION, EMBED)
    zeroed = [n for n, p in fresh.named_parameters() if n.endswith("norm_3.weight") and n != "norm_3.weight"]
    assert len(zeroed) == 5
    assert all(fresh.get_parameter(n).abs().max() == 0 for n in zeroed)
    assert fresh.norm_3.weight.min() == 1  # the stem's


def test_resolution_is_checked() -> None:
    with pytest.raises(ConfigError, match="resolution must be at least 32 for ModifiedResNet; got 16"):
        CONFIG.build(16, EMBED)
