"""VQ-VAE and VQGAN-style codecs: images as a small grid of codes, and back.

The papers' sizes are trained here by pixels and codebook alone: without the adversarial loss and VGG's features of
VQGAN, whose reconstructions are sharper.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.models.codecs.vqvae import VQVAEConfig
from diptych.nn.codec_blocks import ConvCodecConfig
from diptych.nn.quantizer import VectorQuantizerConfig
from diptych.objectives.codec import CodecObjectiveConfig
from diptych.train.config import RunConfig, TrainConfig

AUGMENT = AugmentConfig(crop_scale=None, zoom=(0.9, 1.1), translate=0.05, flip=0.5)
"""Small moves: a codec should see what its users will show it, and a little more."""


def tiny() -> RunConfig:
    """512 codes, 8 x 8 of them for an image of 32 pixels.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain vqvae:tiny data=emoji
    """
    return RunConfig(
        data=LoaderConfig(augment=AUGMENT),
        model=VQVAEConfig(
            image_format=ImageFormat(resolution=32, resize="pad", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            convs=ConvCodecConfig(width=48, multipliers=(1, 2), depth=1, middle="blocks", groups=8, patch=2),
            latent_channels=32,
            quantizer=VectorQuantizerConfig(codes=512, width=16, update="ema", kmeans=True, revive_after=50),
        ),
        objective=CodecObjectiveConfig(scales=2),
        train=TrainConfig(
            samples_seen=80_000,
            global_batch=64,
            lr=2e-3,
            weight_decay=0.01,
            betas=(0.9, 0.99),
            precision="bfloat16",
            channels_last=True,
        ),
    )
