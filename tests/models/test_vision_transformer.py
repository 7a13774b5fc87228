from typing import Any

import pytest
import torch
from torch import Tensor

from diptych.core.errors import ConfigError
from diptych.models.vision_transformer import VisionTransformer, VisionTransformerConfig
from diptych.nn.embed import resize_position_embed
from diptych.nn.patch_masking import hide_pixels
from tests.models.towers import EMBED, RESOLUTION, small, stir


def tower(**changes: Any) -> VisionTransformer:
    made = small(VisionTransformerConfig, **changes).build(RESOLUTION, EMBED)
    stir(made)
    return made.eval()


def images(side: int = RESOLUTION) -> Tensor:
    return torch.randn(2, 3, side, side)


def test_names_are_those_of_the_house() -> None:
    names = {n for n, _ in tower().named_parameters() if not n.startswith("blocks.")}
    assert names == {
        "cls_token",
        "position_embed",
        "patch_embed.weight",
        "projection.weight",
        *(f"{norm}.{part}" for norm in ("norm_pre", "norm_post") for part in ("weight", "bias")),
    }
    siglip = tower(pooling="map", norm_pre=False, patch_bias=True, projection="none")
    names = {n for n, _ in siglip.named_parameters() if not n.startswith("blocks.")}
    linears = [*(f"attention.{n}_proj" for n in ("q", "k", "v", "out")), "norm", "mlp.fc_1", "mlp.fc_2"]
    assert names == {
        "position_embed",
        "patch_embed.weight",
        "patch_embed.bias",
        "norm_post.weight",
        "norm_post.bias",
        "map_pool.probe",
        *(f"map_pool.{n}.{part}" for n in linears for part in ("weight", "bias")),
    }
    assert siglip.decay_free() == {"position_embed", "map_pool.probe"}


@pytest.mark.parametrize("pooling", ["cls", "mean", "map"])
def test_each_pooling_pools_the_tokens(pooling: str) -> None:
    made, x = tower(pooling=pooling), images()
    tokens = made.tokens(x)
    assert tokens.shape == (2, 64 + (pooling == "cls"), 16)
    assert made.projection is not None
    pooled = tokens[:, 0] if pooling == "cls" else tokens.mean(1)
    if made.map_pool is not None:
        pooled = made.map_pool(tokens)
    torch.testing.assert_close(made(x), made.projection(pooled))


def test_another_size_at_run_time_equals_weights_resized_at_load() -> None:
    made, x = tower(), images(96)
    other = small(VisionTransformerConfig).build(96, EMBED).eval()
    weights = dict(made.state_dict())
    weights["position_embed"] = resize_position_embed(weights["position_embed"], (12, 12), prefix=1)
    other.load_state_dict(weights)
    torch.testing.assert_close(made(x), other(x))
    assert made(torch.randn(2, 3, 64, 96)).shape == (2, EMBED)


def test_patch_dropout_shortens_training_only() -> None:
    made, x = tower(patch_dropout=0.75), images()
    plain = tower()
    plain.load_state_dict(made.state_dict())
    assert torch.equal(made(x), plain(x))
    assert made.train().tokens(x).shape == (2, 1 + 16, 16)


def test_patch_dropout_replays_with_the_random_state() -> None:
    made, x = tower(patch_dropout=0.5, depth=1), images()
    state = torch.get_rng_state()
    first = made.train()(x)
    torch.set_rng_state(state)
    assert torch.equal(made(x), first)


def test_no_projection_needs_equal_widths() -> None:
    with pytest.raises(ConfigError, match="width must equal embed_dim"):
        small(VisionTransformerConfig, projection="none").build(RESOLUTION, 24)
    with pytest.raises(ConfigError, match="cross_attention must be 'none'"):
        VisionTransformerConfig(cross_attention="plain")


def test_first_weights_have_openais_spread() -> None:
    made = VisionTransformerConfig(width=128, depth=1, heads=2, patch_size=4).build(64, 96)
    for weight in (made.position_embed, made.projection.weight if made.projection is not None else None):
        assert weight is not None
        assert weight.std().item() == pytest.approx(128**-0.5, rel=0.05)


@pytest.mark.parametrize("mask_token", [False, True])
def test_hidden_patches_change_nothing(mask_token):
    config = VisionTransformerConfig(width=16, depth=2, heads=2, patch_size=4, mask_token=mask_token)
    tower = config.build(16, 8)
    masked = torch.zeros(2, 16, dtype=torch.bool)
    masked[0, [1, 6]], masked[1, 15] = True, True
    images = torch.randn(2, 3, 16, 16)
    other = torch.where(hide_pixels(torch.ones(2, 3, 16, 16), masked) == 0, torch.randn(2, 3, 16, 16), images)
    assert torch.equal(tower.tokens_of_masked(images, masked), tower.tokens_of_masked(other, masked))
    assert not torch.allclose(tower.tokens_of_masked(images, masked), tower.tokens(images))
    nothing = torch.zeros_like(masked)
    assert torch.equal(tower.tokens_of_masked(images, nothing), tower.tokens(images))
    if mask_token:
        tower.tokens_of_masked(images, masked).sum().backward()
        assert tower.mask_token.grad.abs().sum() > 0


@pytest.mark.parametrize("mask_token", [False, True])
def test_states_are_those_before_and_after_the_last_norm(mask_token):
    torch.manual_seed(0)
    tower = VisionTransformerConfig(width=16, depth=2, heads=2, patch_size=8, mask_token=mask_token).build(32, 8)
    images, masked = torch.randn(2, 3, 32, 32), torch.rand(2, 16) < 0.4
    for hidden, tokens in ((None, tower.tokens(images)), (masked, tower.tokens_of_masked(images, masked))):
        before, after = tower.states(images, hidden)
        torch.testing.assert_close(after, tokens)
        torch.testing.assert_close(tower.norm_post(before), tokens)
        assert not torch.allclose(before, after)
