"""Dual encoders by name: two small ones of ours, and the papers' own sizes. Values only."""

import math

from diptych.core.image_format import ImageFormat
from diptych.models.align import AlignConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.efficientnet import EfficientNetConfig, EfficientNetSize
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.mlp import Activation

CLIP_VOCAB_SIZE = 49408
SIGLIP_VOCAB_SIZE = 32000


def tiny() -> TwoTowerConfig:
    """A small residual network at 32 pixels beside one transformer block: trains on two CPU cores in minutes.

    Small pictures are what buys the speed, and dense convolutions with batch norm what learns most from few samples.
    """
    return TwoTowerConfig(
        image_format=ImageFormat(resolution=32, resize="pad", mean=(0.7, 0.7, 0.7), std=(0.35, 0.35, 0.35)),
        context_length=24,
        embed_dim=256,
        image=ConvNetConfig(widths=(32, 64, 128, 256), depths=(0, 1, 1, 1), pool_norm="batch"),
        text=TextTransformerConfig(width=192, depth=1, heads=3, pooling="mean"),
    )


def small() -> TwoTowerConfig:
    """ViT-S/16 at 224 pixels with a text tower of the same width: for one card and some hundred thousand pairs."""
    return TwoTowerConfig(
        embed_dim=384,
        image=VisionTransformerConfig(patch_size=16, width=384, depth=12, heads=6),
        text=TextTransformerConfig(width=384, depth=12, heads=6),
    )


def vit_b32(activation: Activation = "gelu") -> TwoTowerConfig:
    """CLIP ViT-B/32. OpenAI's weights need activation "quick_gelu", here and in all of CLIP's transformers."""
    return _clip_vit(32, 224, 768, 12, 512, 512, activation)


def vit_b16(activation: Activation = "gelu") -> TwoTowerConfig:
    """CLIP ViT-B/16."""
    return _clip_vit(16, 224, 768, 12, 512, 512, activation)


def vit_l14(activation: Activation = "gelu") -> TwoTowerConfig:
    """CLIP ViT-L/14."""
    return _clip_vit(14, 224, 1024, 24, 768, 768, activation)


def vit_l14_336(activation: Activation = "gelu") -> TwoTowerConfig:
    """CLIP ViT-L/14 at 336 pixels."""
    return _clip_vit(14, 336, 1024, 24, 768, 768, activation)


def rn50(activation: Activation = "gelu") -> TwoTowerConfig:
    """CLIP RN50; `activation` is the text tower's."""
    return _clip_resnet(64, (3, 4, 6, 3), 224, 512, 1024, activation)


def rn101(activation: Activation = "gelu") -> TwoTowerConfig:
    """CLIP RN101."""
    return _clip_resnet(64, (3, 4, 23, 3), 224, 512, 512, activation)


def rn50x4(activation: Activation = "gelu") -> TwoTowerConfig:
    """CLIP RN50x4."""
    return _clip_resnet(80, (4, 6, 10, 6), 288, 640, 640, activation)


def rn50x16(activation: Activation = "gelu") -> TwoTowerConfig:
    """CLIP RN50x16."""
    return _clip_resnet(96, (6, 8, 18, 8), 384, 768, 768, activation)


def rn50x64(activation: Activation = "gelu") -> TwoTowerConfig:
    """CLIP RN50x64."""
    return _clip_resnet(128, (3, 15, 36, 10), 448, 1024, 1024, activation)


def siglip_b16() -> TwoTowerConfig:
    """SigLIP B/16 at 224 pixels (Zhai et al., 2023), for a vocabulary of 32 000 whose padding is 1."""
    return TwoTowerConfig(
        image_format=ImageFormat(resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        context_length=64,
        embed_dim=768,
        init_logit_scale=math.log(10),
        init_logit_bias=-10.0,
        image=VisionTransformerConfig(
            patch_size=16,
            width=768,
            depth=12,
            heads=12,
            activation="gelu_tanh",
            norm_eps=1e-6,
            pooling="map",
            norm_pre=False,
            patch_bias=True,
            projection="none",
        ),
        text=TextTransformerConfig(
            width=768,
            depth=12,
            heads=12,
            activation="gelu_tanh",
            norm_eps=1e-6,
            attention="bidirectional",
            pooling="last",
            pad_id=1,
            projection="linear_bias",
        ),
    )


def align_tiny() -> AlignConfig:
    """ALIGN beside `tiny`: a small EfficientNet at 32 pixels, one bidirectional block, no projection of the image."""
    return AlignConfig(
        image_format=ImageFormat(resolution=32, resize="pad", mean=(0.7, 0.7, 0.7), std=(0.35, 0.35, 0.35)),
        context_length=24,
        embed_dim=256,
        image=EfficientNetConfig(
            widths=(32, 64, 128, 256),
            depths=(1, 1, 2, 1),
            kernels=(3, 3, 3, 3),
            strides=(1, 2, 2, 2),
            expansions=(1, 4, 4, 4),
            head_width=0,
            norm_momentum=0.1,  # a run of a thousand steps is short for TensorFlow's 0.01
            projection="none",
        ),
        text=TextTransformerConfig(
            width=192, depth=1, heads=3, attention="bidirectional", pooling="cls", projection="linear_bias"
        ),
    )


def align_base() -> AlignConfig:
    """The public ALIGN of base size: EfficientNet-B7 without its head (640 wide) and BERT-base, at 289 pixels."""
    model = _align("b7", 640, TextTransformerConfig.bert(768, 12, 12))
    return model.replace(image=model.image.replace(padding="even"))


def align_l2() -> AlignConfig:
    """ALIGN as published: EfficientNet-L2 without its head (1376 wide) and BERT-large, at 289 pixels."""
    return _align("l2", 1376, TextTransformerConfig.bert(1024, 24, 16))


def lit_b16() -> TwoTowerConfig:
    """LiT's ViT-B/16, without a projection, as it comes from classifying ImageNet-21k, and a text tower of its size."""
    return TwoTowerConfig(
        image_format=ImageFormat(resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        context_length=16,
        embed_dim=768,
        image=VisionTransformerConfig(
            patch_size=16,
            width=768,
            depth=12,
            heads=12,
            norm_eps=1e-6,
            norm_pre=False,
            patch_bias=True,
            projection="none",
        ),
        text=TextTransformerConfig(width=768, depth=12, heads=12, attention="bidirectional", pooling="cls"),
    )


def _align(size: EfficientNetSize, embed_dim: int, text: TextTransformerConfig) -> AlignConfig:
    return AlignConfig(
        image_format=ImageFormat(resolution=289, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        context_length=64,
        embed_dim=embed_dim,
        image=EfficientNetConfig.named(size).replace(head_width=0, projection="none"),
        text=text,
    )


def _clip_vit(
    patch_size: int, resolution: int, width: int, depth: int, text_width: int, embed_dim: int, activation: Activation
) -> TwoTowerConfig:
    return TwoTowerConfig(
        image_format=ImageFormat(resolution=resolution),
        embed_dim=embed_dim,
        image=VisionTransformerConfig(
            patch_size=patch_size, width=width, depth=depth, heads=width // 64, activation=activation
        ),
        text=_clip_text(text_width, activation),
    )


def _clip_resnet(
    stem_width: int,
    depths: tuple[int, int, int, int],
    resolution: int,
    text_width: int,
    embed_dim: int,
    activation: Activation,
) -> TwoTowerConfig:
    return TwoTowerConfig(
        image_format=ImageFormat(resolution=resolution),
        embed_dim=embed_dim,
        image=ModifiedResNetConfig(stem_width=stem_width, depths=depths),
        text=_clip_text(text_width, activation),
    )


def _clip_text(width: int, activation: Activation) -> TextTransformerConfig:
    return TextTransformerConfig(width=width, depth=12, heads=width // 64, activation=activation)
