"""A small BEiT-3 and an image tokenizer that needs no training, for tests."""

from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from diptych.core.image_format import ImageFormat
from diptych.models.beit3 import BEiT3Config
from diptych.models.codecs.codec import CodecConfig, ImageTokenizer
from diptych.nn.multiway import MultiwayConfig


class ColoursConfig(CodecConfig):
    """An image tokenizer whose code is which of a cell's mean channels are bright: 8 codes."""

    image_format: ImageFormat = ImageFormat(resolution=16)
    side: int = 4

    def build(self, vocab_size: int = 0) -> "Colours":
        return Colours(self, vocab_size)


class Colours(ImageTokenizer):
    """See its settings. Its one parameter, the threshold, is there to be frozen."""

    codebook_size = 8

    def __init__(self, config: ColoursConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.grid = (config.side, config.side)
        self.threshold = torch.nn.Parameter(torch.tensor(0.5))

    def codes(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b n"]:
        cells = torch.nn.functional.adaptive_avg_pool2d(self.at_side(images), self.grid)  # (b, 3, r, k)
        bright = (cells > self.threshold).long()
        return (bright * torch.tensor([1, 2, 4]).view(1, 3, 1, 1)).sum(1).flatten(1)


def small_beit3(**changes: Any) -> BEiT3Config:
    """Three layers at 16 pixels, 4 by 4 patches."""
    plain = {
        "image_format": ImageFormat(resolution=16),
        "context_length": 12,
        "blocks": MultiwayConfig(width=16, depth=3, heads=2),
        "patch_size": 4,
        "codec": ColoursConfig(),
        "embed_dim": 8,
    }
    return BEiT3Config(**plain | changes)


PAPER = MultiwayConfig(width=16, depth=3, heads=2, attention_experts="shared", fusion_layers=1)
"""What the paper describes: one attention, an expert of vision and language on top."""
