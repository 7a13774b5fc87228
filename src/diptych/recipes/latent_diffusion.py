"""Latent diffusion (Rombach et al., 2022, arXiv:2112.10752): a picture out of noise, as a text has it.

The small recipe is of our own making: a DiT (Peebles and Xie, 2023) told of texts as PixArt's is (Chen et al., 2023),
with rectified flow (Esser et al., 2024). The sizes follow their papers in model, schedule and optimizer.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models.latent_diffusion import LatentDiffusionConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.nn.diffusion_transformer import DiffusionTransformerConfig
from diptych.nn.samplers import SamplerConfig
from diptych.objectives.diffusion import DiffusionConfig
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """Pixels of 32 x 32 in patches of 4, six blocks 192 wide, and one block of text trained along.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain latent_diffusion:tiny data=emoji
    Cost:    about five minutes of two cores
    """
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(crop_scale=None, zoom=(0.95, 1.05), translate=0.03)),
        model=LatentDiffusionConfig(
            image_format=ImageFormat(resolution=32, resize="pad", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            context_length=24,
            embed_dim=192,
            text=TextTransformerConfig(width=192, depth=1, heads=3, pooling="mean"),
            denoiser=DiffusionTransformerConfig(width=192, depth=6, heads=3, patch_size=4),
            sampler=SamplerConfig(steps=25, clip=1.0),
            guidance=3.0,
        ),
        objective=DiffusionConfig(),
        train=TrainConfig(
            samples_seen=60_000,
            global_batch=64,
            lr=2e-3,
            weight_decay=0.01,
            betas=(0.9, 0.99),
            precision="bfloat16",
            ema_decay=0.999,
            eval_every_samples=60_000,
        ),
        evals=(RetrievalConfig(captions="first", most_scored=100),),
    )
