"""A small untrained codec, whose codes differ from image to image, for models that read and draw codes."""

import torch

from diptych.core.image_format import ImageFormat
from diptych.models.codecs.vqvae import VQVAEConfig
from diptych.models.model import Model
from diptych.nn.codec_blocks import ConvCodecConfig
from diptych.nn.quantizer import VectorQuantizerConfig

CODES, CELLS = 12, 16


def small_codec() -> VQVAEConfig:
    """4 x 4 codes for an image of 16 pixels."""
    return VQVAEConfig(
        image_format=ImageFormat(resolution=16),
        convs=ConvCodecConfig(width=8, multipliers=(1, 2), depth=1, middle="none", groups=4, patch=2),
        latent_channels=8,
        quantizer=VectorQuantizerConfig(codes=CODES, width=4),
    )


@torch.no_grad()
def spread(model: Model) -> Model:
    """A codebook as wide as what is looked up in it, so that many of its codes are used."""
    codec = model.codec
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    vectors = codec.to_codebook(codec.encoder(2 * codec.at_side(images) - 1)).flatten(2).transpose(1, 2).flatten(0, 1)
    codec.quantizer.codebook.copy_(vectors[:: len(vectors) // CODES][:CODES])
    return model
