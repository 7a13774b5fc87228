"""From pixels to tokens: patches, their positions, and dropping some of them."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diptych.core.errors import ConfigError


class PatchEmbed(nn.Module):
    """Each patch of an image through one linear map: a convolution whose stride is its kernel, as a matrix product.

    The weight has a convolution's shape (d, 3, side, side). What is left over at the right and bottom edge is cut, as
    a convolution without padding does.
    """

    def __init__(self, width: int, patch_size: int, bias: bool = False) -> None:
        super().__init__()
        self.patch_size = patch_size
        conv = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=bias)  # for its first weights
        self.weight, self.bias = conv.weight, conv.bias

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image of this size."""
        rows, columns = height // self.patch_size, width // self.patch_size
        if not rows or not columns:
            raise ConfigError(
                f"an image must be at least one patch of {self.patch_size} pixels; got {height}x{width}. "
                f"Raise the resolution or lower patch_size."
            )
        return rows, columns

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p d"]:
        rows, columns = self.grid(*images.shape[-2:])
        side = self.patch_size
        x = images[:, :, : rows * side, : columns * side].unflatten(3, (columns, side)).unflatten(2, (rows, side))
        return self.of_patches(x.permute(0, 2, 4, 1, 3, 5).reshape(images.shape[0], rows * columns, -1))

    def of_patches(self, patches: Float[Tensor, "b p c"]) -> Float[Tensor, "b p d"]:
        """The embeddings of patches that are cut out already, each flattened like the kernel: (3, side, side)."""
        return F.linear(patches, self.weight.flatten(1), self.bias)


def resize_position_embed(
    position_embed: Float[Tensor, "n d"], grid: tuple[int, int], prefix: int = 0
) -> Float[Tensor, "m d"]:
    """Learned positions of a square grid, for another grid: bicubic with antialiasing, in fp32, differentiable.

    The first `prefix` rows (CLS) are kept. Returned as they are where the grid already fits.
    """
    count = position_embed.shape[0] - prefix
    side = math.isqrt(count)
    if side * side != count:
        raise ConfigError(
            f"position_embed must have {prefix} + side*side rows; got {position_embed.shape[0]}. "
            f"Only square grids can be resized."
        )
    if grid == (side, side):
        return position_embed
    kept, patches = position_embed[:prefix], position_embed[prefix:]
    image = patches.float().T.reshape(1, -1, side, side)
    image = F.interpolate(image, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([kept, image.flatten(2)[0].T.to(position_embed.dtype)])


def patch_dropout(x: Float[Tensor, "b p d"], rate: float, prefix: int, training: bool) -> Float[Tensor, "b k d"]:
    """A random part 1 - `rate` of each image's patches (at least one), the first `prefix` tokens always (FLIP, 2023).

    Exact for the rest: positions have been added before. Drawn on x's device from torch's global generator.
    """
    if not training or rate == 0.0:
        return x
    count = x.shape[1] - prefix
    kept = max(1, int(count * (1.0 - rate)))
    chosen = torch.rand(x.shape[0], count, device=x.device).topk(kept, dim=1).indices + prefix
    patches = x.gather(1, chosen[:, :, None].expand(-1, -1, x.shape[2]))
    return torch.cat([x[:, :prefix], patches], dim=1)
