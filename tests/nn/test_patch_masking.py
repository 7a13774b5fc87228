"""Patches are hidden exactly as many as asked for, in the shape asked for."""

import pytest
import torch

from diptych.nn.patch_masking import PatchMaskingConfig, hide_pixels, mask_patches, places_of

KEYS = torch.arange(64) * 7919


@pytest.mark.parametrize("kind", ["random", "block"])
@pytest.mark.parametrize("grid", [(4, 4), (7, 5), (14, 14)])
def test_as_many_as_asked_for_and_by_the_key_alone(kind, grid):
    config = PatchMaskingConfig(shape=kind, rate=75 / 196, min_block=4)
    masked = mask_patches(KEYS, grid, config)
    assert set(masked.sum(1).tolist()) == {config.count(grid[0] * grid[1])}
    assert torch.equal(mask_patches(KEYS[5:6], grid, config)[0], masked[5])
    assert len({tuple(row.tolist()) for row in masked}) > 20


def test_blocks_hang_together_more_than_chance():
    def borders(kind: str) -> int:
        grid = mask_patches(KEYS, (14, 14), PatchMaskingConfig(shape=kind, rate=0.4)).view(-1, 14, 14).int()
        return int((grid.diff(dim=1) != 0).sum() + (grid.diff(dim=2) != 0).sum())

    assert borders("block") < 0.5 * borders("random")


def test_a_tube_hides_the_same_places_in_each_frame():
    masked = mask_patches(KEYS, (4, 4), PatchMaskingConfig(shape="tube", rate=0.5), frames=3).view(64, 3, 16)
    assert (masked == masked[:, :1]).all()
    free = mask_patches(KEYS, (4, 4), PatchMaskingConfig(rate=0.5), frames=3).view(64, 3, 16)
    assert not (free == free[:, :1]).all()


def test_places_and_pixels():
    masked = mask_patches(KEYS, (4, 4), PatchMaskingConfig(rate=0.5))
    places = places_of(masked, 8)
    assert torch.equal(torch.zeros(64, 16, dtype=torch.bool).scatter(1, places, True), masked)
    assert (places.diff(dim=1) > 0).all()
    images = torch.rand(64, 3, 8, 8) + 1
    hidden = hide_pixels(images, masked) == 0
    assert torch.equal(hidden[:, 0, ::2, ::2].flatten(1), masked)
    assert hidden.float().mean().item() == pytest.approx(0.5)
