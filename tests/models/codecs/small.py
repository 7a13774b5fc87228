"""Small codecs of every kind, at 16 pixels."""

import torch

from diptych.core.image_format import ImageFormat
from diptych.models.codecs.autoencoder_kl import AutoencoderKLConfig
from diptych.models.codecs.codec import Codec, CodecConfig
from diptych.models.codecs.discrete_vae import DiscreteVAEConfig
from diptych.models.codecs.vq_kd import VQKDConfig
from diptych.models.codecs.vqvae import VQVAEConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.nn.codec_blocks import ConvCodecConfig
from diptych.nn.quantizer import VectorQuantizerConfig

SEES = ImageFormat(resolution=16)
CONVS = ConvCodecConfig(width=8, multipliers=(1, 2), depth=1, groups=4, patch=2)
VIT = VisionTransformerConfig(width=16, depth=1, heads=2, patch_size=4, pooling="mean", projection="none")


def configs() -> dict[str, CodecConfig]:
    """One of each, by name."""
    book = VectorQuantizerConfig(codes=12, width=6)
    unit = book.replace(distance="cosine", update="ema", beta=1.0)
    groups = {"codes": 12, "width": 8, "multipliers": (1, 2), "depth": 1, "decoder_width": 6, "patch": 2}
    return {
        "vqvae": VQVAEConfig(image_format=SEES, convs=CONVS, latent_channels=8, quantizer=book),
        "vqvae_ema": VQVAEConfig(
            image_format=SEES, convs=CONVS, latent_channels=8, quantizer=book.replace(update="ema", revive_after=2)
        ),
        "discrete_vae": DiscreteVAEConfig(image_format=SEES, kl_weight=0.5, kl_steps=4, temperature_steps=4, **groups),
        "discrete_vae_l2": DiscreteVAEConfig(image_format=SEES, likelihood="none", **groups),
        "autoencoder_kl": AutoencoderKLConfig(image_format=SEES, convs=CONVS, latent_channels=4, kl_weight=0.1),
        "vq_kd": VQKDConfig(
            image_format=SEES,
            image=VIT,
            quantizer=unit,
            decoder=BlockConfig(width=16, depth=1, heads=2),
            teacher=VisionTransformerConfig(width=24, depth=2, heads=2, patch_size=8),
            teacher_side=32,
            embed_dim=8,
        ),
    }


def small(name: str) -> Codec:
    """A codec with stirred weights, alike each time; a teacher is frozen."""
    torch.manual_seed(0)
    codec = configs()[name].build()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in codec.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g)
    for n, p in codec.named_parameters():
        if n.startswith("teacher"):
            p.requires_grad_(False)
    return codec


def pictures(count: int = 4, side: int = 16) -> torch.Tensor:
    """Images of 4 x 4 coloured squares."""
    g = torch.Generator().manual_seed(2)
    few = torch.randint(0, 256, (count, 3, 4, 4), generator=g, dtype=torch.uint8)
    return few.repeat_interleave(side // 4, 2).repeat_interleave(side // 4, 3)


KEYS = torch.arange(1, 5) * 1_000_003
