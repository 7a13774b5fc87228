"""The KL autoencoder of latent diffusion (Rombach et al., 2022, arXiv:2112.10752): images as a small map of numbers.

Trained by pixels and KL divergence alone: without VGG's features and the adversarial loss of the paper, whose
reconstructions are sharper.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.reconstruction import ReconstructionConfig
from diptych.models.codecs.autoencoder_kl import AutoencoderKLConfig
from diptych.nn.codec_blocks import ConvCodecConfig
from diptych.objectives.codec import CodecObjectiveConfig
from diptych.recipes.vqvae import AUGMENT, CONVS, SEES, TRAIN
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """8 x 8 places of four numbers for an image of 32 pixels.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain autoencoder_kl:tiny data=emoji
    Cost:    some four minutes of one core (317 images a second)
    Expect:  SSIM of 0.805 [0.801, 0.809] on the test artist, 0.205 above a thumbnail of 8 x 8 mean colours
    """
    return RunConfig(
        data=LoaderConfig(augment=AUGMENT),
        model=AutoencoderKLConfig(image_format=SEES, convs=CONVS, latent_channels=4, kl_weight=1e-4),
        objective=CodecObjectiveConfig(scales=2),
        train=TRAIN,
        evals=(ReconstructionConfig(),),
    )


def paper_f8() -> RunConfig:
    """Stable Diffusion's first stage: 32 x 32 places of four numbers for an image of 256 pixels.

    Run:     diptych pretrain autoencoder_kl:paper_f8 data=DIR
    """
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(flip=0.5)),
        model=AutoencoderKLConfig(
            image_format=ImageFormat(resolution=256),
            convs=ConvCodecConfig(multipliers=(1, 2, 4, 4)),
            kl_weight=1e-6 / 48,
        ),
        objective=CodecObjectiveConfig(),
        train=TrainConfig(
            samples_seen=9_600_000,
            global_batch=96,
            lr=4.32e-4,
            weight_decay=0.0,
            betas=(0.5, 0.9),
            eps=1e-8,
            precision="bfloat16",
        ),
        evals=(ReconstructionConfig(max_items=5000),),
    )
