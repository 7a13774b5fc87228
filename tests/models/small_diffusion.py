"""Small denoising models for the tests, and a codec that costs nothing."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.core.image_format import ImageFormat
from diptych.models.codecs.codec import CodecConfig, ImageDecoder
from diptych.models.latent_diffusion import LatentDiffusionConfig
from diptych.models.prior import PriorConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.unclip import UnClipConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.nn.diffusion_transformer import DiffusionTransformerConfig
from diptych.nn.samplers import SamplerConfig


class HalvesConfig(CodecConfig):
    """Settings of a codec whose latents are the picture at half its side."""

    def build(self, vocab_size: int = 0) -> "Halves":
        return Halves(self, vocab_size)


class Halves(ImageDecoder):
    """Shrinks and grows; has a weight, which nothing may train."""

    latent_channels = 3

    def __init__(self, config: HalvesConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        side = config.image_format.resolution // 2
        self.grid = (side, side)
        self.gain = torch.nn.Parameter(torch.tensor(3.0))

    def encode(self, images: Tensor) -> Tensor:
        return self.gain * F.avg_pool2d(self.at_side(images), 2)

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents / self.gain, scale_factor=2.0)


def small_diffusion(**changes) -> LatentDiffusionConfig:
    plain = {
        "image_format": ImageFormat(resolution=16),
        "context_length": 12,
        "embed_dim": 8,
        "text": TextTransformerConfig(width=16, depth=1, heads=2, pooling="mean"),
        "denoiser": DiffusionTransformerConfig(width=16, depth=2, heads=2, patch_size=4),
        "score_draws": 3,
    }
    return LatentDiffusionConfig(**plain | changes)


def small_codec(side: int = 16) -> HalvesConfig:
    return HalvesConfig(image_format=ImageFormat(resolution=side))


def small_prior(**changes) -> PriorConfig:
    form = ImageFormat(resolution=16)
    clip = TwoTowerConfig(
        image_format=form,
        context_length=12,
        embed_dim=8,
        image=VisionTransformerConfig(width=16, depth=1, heads=2, patch_size=8),
        text=TextTransformerConfig(width=16, depth=1, heads=2),
    )
    plain = {
        "image_format": form,
        "context_length": 12,
        "clip": clip,
        "transformer": BlockConfig(width=16, depth=2, heads=2),
        "sampler": SamplerConfig(name="ddim", steps=4),
    }
    return PriorConfig(**plain | changes)


def small_unclip(**changes) -> UnClipConfig:
    plain = {name: getattr(small_diffusion(), name) for name in LatentDiffusionConfig.model_fields}
    return UnClipConfig(**plain | {"prior": small_prior(), "condition_dropout": 0.5, "image_tokens": 2} | changes)
