import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import ConfigError
from diptych.nn.embed import PatchEmbed, patch_dropout, resize_position_embed


@pytest.mark.parametrize("size", [(12, 12), (8, 12), (13, 15)])
def test_patches_equal_a_convolution_in_value_and_gradient(size: tuple[int, int]) -> None:
    embed = PatchEmbed(6, 4, bias=True).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    ours = embed(x)
    theirs = F.conv2d(x, embed.weight, embed.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    toward = torch.randn_like(ours)
    inputs = (x, embed.weight, embed.bias)
    for a, b in zip(
        torch.autograd.grad((ours * toward).sum(), inputs),
        torch.autograd.grad((theirs * toward).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_patches_take_any_memory_format() -> None:
    embed, x = PatchEmbed(6, 4), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(embed(x), embed(x.contiguous(memory_format=torch.channels_last)))


def test_an_image_below_one_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one patch of 16 pixels; got 12x40"):
        PatchEmbed(6, 16)(torch.zeros(1, 3, 12, 40))


def test_positions_that_fit_are_returned_untouched() -> None:
    table = torch.randn(17, 6)
    assert resize_position_embed(table, (4, 4), prefix=1) is table


def test_positions_resize_as_an_image_and_keep_cls() -> None:
    table = torch.randn(17, 6)
    out = resize_position_embed(table, (7, 3), prefix=1)
    assert torch.equal(out[0], table[0])
    for channel in range(6):  # one channel at a time, as a grey image
        grey = table[1:, channel].view(1, 1, 4, 4)
        expected = F.interpolate(grey, size=(7, 3), mode="bicubic", antialias=True, align_corners=False)
        torch.testing.assert_close(out[1:, channel].view(7, 3), expected[0, 0])


def test_constant_positions_stay_constant_and_gradients_flow() -> None:
    table = torch.full((16, 3), 2.0, requires_grad=True)
    for grid in ((2, 2), (9, 5)):
        out = resize_position_embed(table, grid)
        torch.testing.assert_close(out, torch.full((grid[0] * grid[1], 3), 2.0))
        (grad,) = torch.autograd.grad(out.sum(), table)
        assert grad.sum().item() == pytest.approx(grid[0] * grid[1] * 3)


def test_only_square_grids_can_be_resized() -> None:
    with pytest.raises(ConfigError, match="must have 1 \\+ side\\*side rows; got 16"):
        resize_position_embed(torch.zeros(16, 3), (5, 5), prefix=1)


def test_patch_dropout_keeps_cls_and_distinct_patches() -> None:
    x = torch.arange(11.0).expand(3, 11)[:, :, None].clone()
    out = patch_dropout(x, 0.5, prefix=1, training=True)[:, :, 0]
    assert out.shape == (3, 6)
    assert (out[:, 0] == 0).all()
    assert all(len(set(row.tolist())) == 6 for row in out)
    assert not torch.equal(out[0].sort().values, out[1].sort().values)  # drawn anew for each image


def test_patch_dropout_rests_in_eval_replays_and_leaves_one() -> None:
    x = torch.randn(2, 9, 4)
    assert patch_dropout(x, 0.5, 1, training=False) is x
    state = torch.get_rng_state()
    first = patch_dropout(x, 0.5, 1, training=True)
    torch.set_rng_state(state)
    assert torch.equal(first, patch_dropout(x, 0.5, 1, training=True))
    assert patch_dropout(x, 0.99, 1, training=True).shape == (2, 2, 4)
