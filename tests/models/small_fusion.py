"""Small models that fuse, for tests."""

from diptych.core.image_format import ImageFormat
from diptych.models.albef import AlbefConfig
from diptych.models.blip import BlipConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig

BERT = BlockConfig(width=16, depth=2, heads=2, norm_position="post", norm_eps=1e-12)
SHARED = {
    "image_format": ImageFormat(resolution=16),
    "context_length": 12,
    "embed_dim": 8,
    "image": VisionTransformerConfig(width=12, depth=1, heads=2, patch_size=8, norm_pre=False, patch_bias=True),
}


def small_blip(**changes) -> BlipConfig:
    """Two blocks, of BERT's kind."""
    return BlipConfig(**SHARED | {"text": BERT} | changes)


def small_albef(**changes) -> AlbefConfig:
    """One block that reads alone, one that fuses."""
    return AlbefConfig(**SHARED | {"text": BERT.replace(depth=1), "fusion_depth": 1} | changes)


KINDS = {
    "all": small_blip(),
    "apart": small_blip(shares=False),
    "writes": small_blip(roles="writes", text=BERT.replace(norm_position="pre"), write_id=29),
}
"""Those of BLIP that write."""
