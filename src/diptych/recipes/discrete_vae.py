"""DALL-E's discrete VAE (Ramesh et al., 2021, arXiv:2102.12092): images as a grid of codes, for what writes codes.

The paper's values are those of its appendix A.2: AdamW (0.9, 0.999), eps 1e-8, decay 1e-4, a cosine from 1e-4 over
1.2 M updates of 512 images, which falls to 1.25e-6 there and to 0 here; a moving average of the weights, 0.999.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.reconstruction import ReconstructionConfig
from diptych.models.codecs.discrete_vae import DiscreteVAEConfig
from diptych.objectives.codec import CodecObjectiveConfig
from diptych.recipes.vqvae import AUGMENT, SEES, TRAIN
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """512 codes, 8 x 8 of them for an image of 32 pixels.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain discrete_vae:tiny data=emoji
    Cost:    some six minutes of one core (213 images a second)
    Expect:  SSIM of 0.502 [0.497, 0.508] on the test artist, 0.098 below a thumbnail of 8 x 8 mean colours: vqvae:tiny,
             with as many codes, reaches 0.777
    """
    return RunConfig(
        data=LoaderConfig(augment=AUGMENT),
        model=DiscreteVAEConfig(
            image_format=SEES,
            codes=512,
            width=64,
            multipliers=(1, 2),
            decoder_width=64,
            patch=2,
            kl_weight=3.0,  # of 200 steps: perplexity 85 of 512 codes; with 1.0: 15
            kl_steps=0,  # with a ramp so short a run has collapsed to one code before the divergence weighs anything
            temperature_steps=1000,
        ),
        objective=CodecObjectiveConfig(),
        train=TRAIN,
        evals=(ReconstructionConfig(),),
    )


def paper() -> RunConfig:
    """8192 codes, 32 x 32 of them for an image of 256 pixels.

    Run:     diptych pretrain discrete_vae:paper data=DIR
    """
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(flip=0.5)),
        model=DiscreteVAEConfig(image_format=ImageFormat(resolution=256)),
        objective=CodecObjectiveConfig(),
        train=TrainConfig(
            samples_seen=1_200_000 * 512,
            global_batch=512,
            lr=1e-4,
            warmup_samples=0,
            weight_decay=1e-4,
            betas=(0.9, 0.999),
            eps=1e-8,
            ema_decay=0.999,
            precision="bfloat16",
        ),
        evals=(ReconstructionConfig(max_items=5000),),
    )
