"""Patches cut from uint8 pixels are those that the patch embedding would look at."""

import numpy as np
import pytest
import torch

from diptych.data.patches import cut_patches, draw_patches, patch_grid
from diptych.data.samples import sample_keys
from diptych.nn.embed import PatchEmbed
from tests.data.tiny_split import picture


@pytest.mark.parametrize("size, height, width", [(4, 12, 12), (4, 14, 15), (5, 12, 23)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cut_equals_embedding_all(size: int, height: int, width: int, layout: torch.memory_format) -> None:
    images = torch.stack([picture(i, height, width) for i in range(3)]).contiguous(memory_format=layout)
    rows, columns = patch_grid(height, width, size)
    index = draw_patches(sample_keys(0, 3, 0), rows * columns, 0.4)
    kept = cut_patches(images, size, index)
    assert kept.is_contiguous()
    embed = PatchEmbed(8, size)
    chosen = embed(images.float()).gather(1, index[:, :, None].expand(-1, -1, 8))
    assert torch.allclose(kept.float() @ embed.weight.flatten(1).T, chosen, atol=1e-2, rtol=1e-5)
    one = images[1, :, index[1, 0] // columns * size :, index[1, 0] % columns * size :][:, :size, :size]
    assert torch.equal(kept[1, 0], one.flatten())


def test_draws_are_even_sorted_and_each_samples_own() -> None:
    keys = sample_keys(0, 400, 0)
    index = draw_patches(keys, 10, 0.7)
    assert index.shape == (400, 3)
    assert (index.diff(dim=1) > 0).all()
    counts = np.bincount(index.flatten().numpy(), minlength=10)
    assert counts.min() > 120 - 4 * 9.2
    assert counts.max() < 120 + 4 * 9.2, "400 x 0.3, give or take four standard deviations"
    assert torch.equal(draw_patches(keys[7:9], 10, 0.7), index[7:9])
    assert draw_patches(keys[:2], 10, 0.99).shape == (2, 1), "at least one"
