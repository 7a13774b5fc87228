"""Hiding patches of an image: at random, in blocks (BEiT), in tubes through a clip's frames."""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.config import Config
from diptych.nn.draws import uniform

ATTEMPTS = 32
"""Blocks that are tried on each image; what they leave open is filled at random, so that the number is exact."""


class PatchMaskingConfig(Config):
    """How patches are hidden.

    rate       share of the patches
    shape      "random": each alike (MAE, SimMIM, MaskVLM); "block": rectangles until the share is reached (BEiT,
               arXiv:2106.08254, algorithm 1); "tube": at random, the same places in each frame (VideoMAE)
    min_block  the fewest patches of a rectangle; BEiT's 16 are of 196
    aspect     a rectangle's height over width is drawn from aspect to 1 / aspect, log-uniformly
    """

    rate: float = Field(default=0.4, gt=0, lt=1)
    shape: Literal["random", "block", "tube"] = "random"
    min_block: int = Field(default=16, ge=1)
    aspect: float = Field(default=0.3, gt=0, le=1)

    def count(self, patches: int) -> int:
        """How many of so many patches are hidden: at least one, and never all."""
        return min(max(1, round(self.rate * patches)), patches - 1)


def mask_patches(
    keys: Int64[Tensor, " b"], grid: tuple[int, int], config: PatchMaskingConfig, frames: int = 1
) -> Bool[Tensor, "b p"]:
    """Which patches of a grid of (rows, columns) are hidden in each image, as its key decides: `config.count` of them.

    Of a clip, frame by frame: each frame by itself, but for tubes.
    """
    rows, columns = grid
    size = rows * columns
    if config.shape == "tube":
        return _first(uniform(keys, "masked patches", size), config.count(size)).repeat(1, frames)
    if config.shape == "random":
        return _first(uniform(keys, "masked patches", size * frames), config.count(size * frames))
    parts = [_blocks(keys, grid, config, f"frame {i}" if i else "blocks") for i in range(frames)]
    return torch.cat(parts, dim=1)


def places_of(masked: Bool[Tensor, "b p"], count: int) -> Int64[Tensor, "b {count}"]:
    """The places of the True, ascending, `count` in each row: no shape is read back from a device."""
    return masked.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]


def hide_pixels(images: Float[Tensor, "b 3 h w"], masked: Bool[Tensor, "b p"]) -> Float[Tensor, "b 3 h w"]:
    """Normalised images whose hidden cells are of the mean colour; the grid is square, and its side divides theirs."""
    side = math.isqrt(masked.shape[1])
    height, width = images.shape[-2] // side, images.shape[-1] // side
    hidden = masked.view(-1, 1, side, side).repeat_interleave(height, 2).repeat_interleave(width, 3)
    return images.masked_fill(hidden, 0.0)


def _first(score: Tensor, count: int) -> Tensor:
    """True at the `count` smallest of each row."""
    chosen = score.argsort(dim=1)[:, :count]
    return torch.zeros_like(score, dtype=torch.bool).scatter_(1, chosen, True)


def _blocks(keys: Tensor, grid: tuple[int, int], config: PatchMaskingConfig, name: str) -> Tensor:
    rows, columns = grid
    count, device = config.count(rows * columns), keys.device
    draw = uniform(keys, f"masked {name}", 4 * ATTEMPTS).unflatten(1, (ATTEMPTS, 4))  # (b, attempts, 4)
    row, column = torch.arange(rows, device=device)[:, None], torch.arange(columns, device=device)
    masked = torch.zeros(len(keys), rows, columns, dtype=torch.bool, device=device)
    least = math.log(config.aspect)
    for i in range(ATTEMPTS):
        left = count - masked.sum((1, 2))
        area = config.min_block + draw[:, i, 0] * (left - config.min_block)
        aspect = (least * (1 - 2 * draw[:, i, 1])).exp()
        high, wide = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
        fits = (high > 0) & (wide > 0) & (high < rows) & (wide < columns)
        top = (draw[:, i, 2] * (rows - high + 1)).long()
        start = (draw[:, i, 3] * (columns - wide + 1)).long()
        top, high, start, wide = (x[:, None, None] for x in (top, high, start, wide))
        block = (row >= top) & (row < top + high) & (column >= start) & (column < start + wide)
        new = (block & ~masked).sum((1, 2))
        masked = masked | (block & (fits & (new > 0) & (new <= left))[:, None, None])
    fill = uniform(keys, f"fill {name}", rows * columns)
    return _first(torch.where(masked.flatten(1), fill - 1, fill), count)
