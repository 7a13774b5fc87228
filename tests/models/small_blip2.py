"""A small first stage of BLIP-2, for tests."""

from diptych.core.image_format import ImageFormat
from diptych.models.blip2 import Blip2Config
from diptych.models.connectors.qformer import QFormerConfig
from diptych.models.vision_transformer import VisionTransformerConfig


def small_blip2(**changes) -> Blip2Config:
    """Three blocks, of which two look at the image; four queries."""
    plain = {
        "image_format": ImageFormat(resolution=16),
        "context_length": 12,
        "embed_dim": 8,
        "image": VisionTransformerConfig(width=12, depth=1, heads=2, patch_size=8),
        "qformer": QFormerConfig(queries=4, width=16, depth=3, heads=2),
        "shared_dim": 6,
    }
    return Blip2Config(**plain | changes)
