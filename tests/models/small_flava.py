"""A small FLAVA over a codec that needs no training: the colour of each cell, in few levels."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from diptych.core.image_format import ImageFormat
from diptych.models.codecs.codec import CodecConfig, ImageTokenizer
from diptych.models.flava import Flava, FlavaConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from tests.models.towers import stir


class ColoursConfig(CodecConfig):
    """`side` cells in a row, `levels` of each channel."""

    image_format: ImageFormat = ImageFormat(resolution=16)
    side: int = 4
    levels: int = 3

    def build(self, vocab_size: int = 0) -> "Colours":
        return Colours(self, vocab_size)


class Colours(ImageTokenizer):
    """The mean colour of each cell, quantised; its one weight does nothing."""

    config: ColoursConfig

    def __init__(self, config: ColoursConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.grid, self.codebook_size = (config.side, config.side), config.levels**3
        self.idle = torch.nn.Parameter(torch.zeros(2))

    @torch.no_grad()
    def codes(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b n"]:
        n = self.config.levels
        mean = F.adaptive_avg_pool2d(images.float(), self.grid) / 256  # (b, 3, side, side)
        level = (mean * n).long().clamp(max=n - 1)
        return (level[:, 0] * n * n + level[:, 1] * n + level[:, 2]).flatten(1)


def small_flava(**changes: Any) -> FlavaConfig:
    """16 pixels in 4 by 4 patches, one or two blocks everywhere."""
    block = {"width": 16, "heads": 2, "norm_eps": 1e-12}
    plain: dict[str, Any] = {
        "image_format": ImageFormat(resolution=16),
        "context_length": 12,
        "embed_dim": 8,
        "image": VisionTransformerConfig(
            **block,
            depth=1,
            patch_size=4,
            norm_pre=False,
            patch_bias=True,
            projection="linear_bias",
            mask_token=True,
        ),
        "text": TextTransformerConfig(
            **block, depth=1, norm_pre=True, attention="bidirectional", pooling="cls", projection="linear_bias"
        ),
        "fusion": BlockConfig(**block, depth=2),
        "codec": ColoursConfig(),
    }
    return FlavaConfig(**plain | changes)


def stirred_flava(seed: int = 0, **changes: Any) -> Flava:
    """With noise on all weights, in eval mode."""
    torch.manual_seed(seed)
    model = small_flava(**changes).build(30)
    stir(model)
    return model.eval()
