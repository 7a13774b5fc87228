"""Patches that a model will not look at never leave the worker: the rest is cut out of uint8 pixels and sent alone.

What the device would do after embedding every patch (nn.embed.patch_dropout), done before anything is computed or
copied. Which patches stay is a function of the sample's key alone: passes, ranks and restarts agree on it.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from diptych.data.draws import Draws


class PatchShare(NamedTuple):
    """Patches of `size` pixels a side, of which the share `dropped` is left out of each image."""

    size: int
    dropped: float


def draw_patches(keys: list[int], count: int, dropped: float) -> Int64[Tensor, "b k"]:
    """Which of `count` patches each sample keeps, in rising order: 1 - `dropped` of them, at least one."""
    kept = max(1, int(count * (1.0 - dropped)))
    order = np.argsort(Draws(keys).words("patches", count), axis=1, kind="stable")
    return torch.from_numpy(np.sort(order[:, :kept], axis=1))


def cut_patches(
    images: UInt8[Tensor, "b 3 h w"], size: int, index: Int64[Tensor, "b k"]
) -> UInt8[Tensor, "b k 3*{size}*{size}"]:
    """The patches of each image that `index` names (row by row), flattened channel by channel as a convolution's kernel
    is. What is left over at the right and bottom edge belongs to no patch."""
    rows, columns = patch_grid(images.shape[2], images.shape[3], size)
    x = images[:, :, : rows * size, : columns * size].unflatten(3, (columns, size)).unflatten(2, (rows, size))
    patches = x.permute(0, 2, 4, 1, 3, 5).numpy()  # a view: (b, rows, columns, 3, size, size)
    kept = patches[np.arange(len(images))[:, None], *np.divmod(index.numpy(), columns)]
    return torch.from_numpy(kept.reshape(*index.shape, 3 * size * size))


def patch_grid(height: int, width: int, size: int) -> tuple[int, int]:
    """Rows and columns of patches in an image of this size."""
    return height // size, width // size
