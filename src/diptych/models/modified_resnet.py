"""CLIP's ResNet (Radford et al., 2021, section 2.4): three-convolution stem, antialiased strides, attention pooling."""

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.models.tower import ImageTower, ImageTowerConfig
from diptych.nn.pool import AttentionPool

EXPANSION = 4
STRIDE = 32
"""Pixels of the image per place of the last map."""


class ModifiedResNetConfig(ImageTowerConfig):
    """Settings of CLIP's ResNet: `stem_width` 64 and `depths` (3, 4, 6, 3) are RN50.

    The last map has 32 x stem_width channels; the pool's heads are 64 wide. `channels_last` runs the convolutions in
    that memory format, which is the faster one on most hardware and the same function.
    """

    stem_width: int = Field(default=64, gt=0, multiple_of=2)
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    channels_last: bool = True

    def build(self, resolution: int, embed_dim: int) -> "ModifiedResNet":
        return ModifiedResNet(self, resolution, embed_dim)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a residual; a stride is an average pool before the last convolution and in the shortcut."""

    recomputable: ClassVar[bool] = True

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv_1, self.norm_1 = nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv_2, self.norm_2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv_3, self.norm_3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.shortcut_conv, self.shortcut_norm = None, None
        if stride > 1 or width_in != out:
            self.shortcut_conv, self.shortcut_norm = nn.Conv2d(width_in, out, 1, bias=False), nn.BatchNorm2d(out)
        nn.init.zeros_(self.norm_3.weight)  # each block starts as its shortcut

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        y = self.norm_1(self.conv_1(x)).relu()
        y = self.norm_2(self.conv_2(y)).relu()
        y = self.norm_3(self.conv_3(self.pool(y)))
        if self.shortcut_conv is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut_conv(self.pool(x)))
        return (x + y).relu()


class ModifiedResNet(ImageTower):
    """CLIP's ResNet. Takes images of any size: the positions of its pool are interpolated.

    First weights follow OpenAI's code: torch's defaults, the last norm of each block zero, the pool as in its class.
    """

    def __init__(self, config: ModifiedResNetConfig, resolution: int, embed_dim: int) -> None:
        super().__init__()
        c = self.config = config
        if resolution < STRIDE:
            raise ConfigError(f"resolution must be at least {STRIDE} for ModifiedResNet; got {resolution}. Raise it.")
        stem = c.stem_width
        self.width = stem * 8 * EXPANSION
        self.conv_1 = nn.Conv2d(3, stem // 2, 3, stride=2, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(stem // 2)
        self.conv_2 = nn.Conv2d(stem // 2, stem // 2, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(stem // 2)
        self.conv_3 = nn.Conv2d(stem // 2, stem, 3, padding=1, bias=False)
        self.norm_3 = nn.BatchNorm2d(stem)
        self.pool = nn.AvgPool2d(2)
        self.layer_1 = _stage(stem, stem, c.depths[0], stride=1)
        self.layer_2 = _stage(stem * 4, stem * 2, c.depths[1], stride=2)
        self.layer_3 = _stage(stem * 8, stem * 4, c.depths[2], stride=2)
        self.layer_4 = _stage(stem * 16, stem * 8, c.depths[3], stride=2)
        self.attention_pool = AttentionPool(self.width, max(self.width // 64, 1), resolution // STRIDE, embed_dim)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        return self.attention_pool(self._encode(images))

    def tokens(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p d"]:
        return self._encode(images).flatten(2).transpose(1, 2)

    def decay_free(self) -> set[str]:
        return {"attention_pool.position_embed"}

    def _encode(self, images: Tensor) -> Tensor:
        x = images.contiguous(memory_format=torch.channels_last) if self.config.channels_last else images
        x = self.norm_1(self.conv_1(x)).relu()
        x = self.norm_2(self.conv_2(x)).relu()
        x = self.pool(self.norm_3(self.conv_3(x)).relu())
        return self.layer_4(self.layer_3(self.layer_2(self.layer_1(x))))


def _stage(width_in: int, width: int, depth: int, stride: int) -> nn.Sequential:
    first = Bottleneck(width_in, width, stride)
    return nn.Sequential(first, *(Bottleneck(width * EXPANSION, width, 1) for _ in range(depth - 1)))
