"""Small MaskVLMs, for tests."""

from diptych.core.image_format import ImageFormat
from diptych.models.convnet import ConvNetConfig
from diptych.models.maskvlm import MaskVLMConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig


def small_maskvlm(**changes) -> MaskVLMConfig:
    """A vision transformer with a CLS and four by four cells, beside a bidirectional text tower."""
    plain = {
        "image_format": ImageFormat(resolution=16),
        "context_length": 12,
        "embed_dim": 8,
        "image": VisionTransformerConfig(width=12, depth=1, heads=2, patch_size=4, mask_token=True),
        "text": TextTransformerConfig(width=14, depth=1, heads=2, attention="bidirectional", pooling="cls"),
        "crossing": BlockConfig(width=16, depth=2, heads=2),
        "decoder": BlockConfig(width=16, depth=1, heads=2),
    }
    return MaskVLMConfig(**plain | changes)


def small_conv_maskvlm(norm: str = "group", **changes) -> MaskVLMConfig:
    """A convolutional tower of four by four cells, and means instead of CLS tokens."""
    conv = ConvNetConfig(widths=(8, 12), depths=(0, 1), norm=norm)
    ours = {"image": conv, "positions": "learned", "image_pooling": "mean", "text_pooling": "mean"}
    return small_maskvlm(**ours | changes)
