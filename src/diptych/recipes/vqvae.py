"""VQ-VAE and VQGAN-style codecs: images as a small grid of codes, and back.

The papers' sizes are trained here by pixels and codebook alone: without the adversarial loss and VGG's features of
VQGAN, whose reconstructions are sharper.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.reconstruction import ReconstructionConfig
from diptych.models.codecs.vqvae import VQVAEConfig
from diptych.nn.codec_blocks import ConvCodecConfig
from diptych.nn.quantizer import VectorQuantizerConfig
from diptych.objectives.codec import CodecObjectiveConfig
from diptych.train.config import RunConfig, TrainConfig

AUGMENT = AugmentConfig(crop_scale=None, zoom=(0.9, 1.1), translate=0.05, flip=0.5)
"""Small moves: a codec should see what it will be shown later, and a little more."""
SEES = ImageFormat(resolution=32, resize="pad", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CONVS = ConvCodecConfig(width=32, multipliers=(1, 2), depth=1, middle="blocks", groups=8, patch=2)
"""From 32 pixels to 8 x 8 places: squares of 2 x 2 pixels, halved once."""
TRAIN = TrainConfig(
    samples_seen=80_000,
    global_batch=64,
    lr=2e-3,
    weight_decay=0.01,
    betas=(0.9, 0.99),
    precision="bfloat16",
)
"""Of the small codecs of this folder."""


def tiny() -> RunConfig:
    """512 codes, 8 x 8 of them for an image of 32 pixels.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain vqvae:tiny data=emoji
    Cost:    about three minutes of two cores
    Expect:  SSIM of 0.777 [0.773, 0.782] on the test artist, 0.177 above a thumbnail of 8 x 8 mean colours
    """
    return RunConfig(
        data=LoaderConfig(augment=AUGMENT),
        model=VQVAEConfig(
            image_format=SEES,
            convs=CONVS,
            latent_channels=64,
            quantizer=VectorQuantizerConfig(codes=512, width=16, update="ema", kmeans=True, revive_after=50),
        ),
        objective=CodecObjectiveConfig(scales=2),
        train=TRAIN,
        evals=(ReconstructionConfig(),),
    )


def chameleon() -> RunConfig:
    """The size of Chameleon's: 8192 codes, 32 x 32 of them for an image of 512 pixels.

    Run:     diptych pretrain vqvae:chameleon data=DIR
    """
    return _paper(
        512,
        ConvCodecConfig(multipliers=(1, 1, 2, 2, 4)),
        VectorQuantizerConfig(codes=8192, width=256, kmeans=True, revive_after=1000),
    )


def vqgan_f16() -> RunConfig:
    """The size of VQGAN's on ImageNet, and of Janus's: 16384 codes, 16 x 16 of them for an image of 256 pixels.

    Run:     diptych pretrain vqvae:vqgan_f16 data=DIR
    """
    return _paper(
        256,
        ConvCodecConfig(multipliers=(1, 1, 2, 2, 4), attention=(4,)),
        VectorQuantizerConfig(codes=16384, width=256, kmeans=True, revive_after=1000),
    )


def _paper(side: int, convs: ConvCodecConfig, quantizer: VectorQuantizerConfig) -> RunConfig:
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(flip=0.5)),
        model=VQVAEConfig(image_format=ImageFormat(resolution=side), convs=convs, quantizer=quantizer),
        objective=CodecObjectiveConfig(),
        train=TrainConfig(
            samples_seen=38_400_000,
            global_batch=256,
            lr=1e-4,
            weight_decay=0.0,
            betas=(0.5, 0.9),
            eps=1e-8,
            precision="bfloat16",
        ),
        evals=(ReconstructionConfig(max_items=5000),),
    )
