"""Latent diffusion (Rombach et al., 2022, arXiv:2112.10752): a picture out of noise, as a text has it.

The small recipe is of our own making: a DiT (Peebles and Xie, 2023) told of texts as PixArt's is (Chen et al., 2023),
with rectified flow (Esser et al., 2024). The sizes follow their papers in model, schedule and optimizer.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import NO_AUGMENTATION, AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models.codecs.autoencoder_kl import AutoencoderKLConfig
from diptych.models.latent_diffusion import LatentDiffusionConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.nn.codec_blocks import ConvCodecConfig
from diptych.nn.denoiser import DenoiserConfig
from diptych.nn.diffusion_transformer import DiffusionTransformerConfig
from diptych.nn.noise_schedule import NoiseScheduleConfig
from diptych.nn.samplers import SamplerConfig
from diptych.nn.unet import UNetConfig
from diptych.objectives.diffusion import DiffusionConfig
from diptych.recipes import autoencoder_kl
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """Two runs: a KL autoencoder learns images of 32 pixels as 8 x 8 places of four numbers; then six blocks 256 wide
    denoise these in squares of two, told of texts by one block that is trained along.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain latent_diffusion:tiny data=emoji
    Cost:    about six minutes of two cores
    Expect:  a CLIP ranks the text that a picture was painted for 65th of 300 [51, 82] by the median (chance 150, real
             pictures 2nd), painted at painting.guidance=4 for the test artist's names: flags and faces, few objects
    """
    codec = autoencoder_kl.tiny()
    assert isinstance(codec.model, AutoencoderKLConfig)
    run = tiny_pixels()
    assert isinstance(run.model, LatentDiffusionConfig)
    return run.replace(
        before=(codec.replace(stage="codec", train=codec.train.replace(samples_seen=20_000), evals=()),),
        parts={"codec": "stage:codec#"},
        model=run.model.replace(
            codec=codec.model,
            image_format=codec.model.image_format,
            denoiser=DiffusionTransformerConfig(width=256, depth=6, heads=4, patch_size=2),
            sampler=SamplerConfig(steps=25),
            latent_scale=1.0,  # the codec measures its own
        ),
        train=run.train.replace(samples_seen=40_000, global_batch=32, lr=1e-3, freeze=("codec",), frozen="live"),
    )


def tiny_pixels() -> RunConfig:
    """Pixels of 32 x 32 in patches of 4, six blocks 192 wide, and one block of text trained along.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain latent_diffusion:tiny_pixels data=emoji
    Cost:    about seven minutes of two cores, at the 100 samples a second that were seen on a busy machine
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
            score_draws=4,
        ),
        objective=DiffusionConfig(),
        train=TrainConfig(
            samples_seen=40_000,
            global_batch=64,
            lr=2e-3,
            weight_decay=0.01,
            betas=(0.9, 0.99),
            precision="bfloat16",
            ema_decay=0.999,
            eval_every_samples=1_000_000,  # every pair is scored: at the end is enough
        ),
        evals=(RetrievalConfig(captions="first", most_scored=100),),
    )


def dit_xl() -> RunConfig:
    """DiT-XL/2 on latents of 256 pixels, told of texts by cross-attention in place of classes: 7 M steps of 256.

    Run:     diptych pretrain latent_diffusion:dit_xl data=DIR parts.codec=KL# parts.text_tower=CLIP

    KL is the folder of a KL autoencoder of images of 256 pixels, CLIP that of any model with a text tower.
    """
    return _paper(
        side=256,
        denoiser=DiffusionTransformerConfig(width=1152, depth=28, heads=16, patch_size=2),
        schedule=NoiseScheduleConfig(course="linear", target="epsilon", drawn="uniform"),
        samples_seen=7_000_000 * 256,
        global_batch=256,
        weight_decay=0.0,
    )


def stable_diffusion() -> RunConfig:
    """Stable Diffusion 1's U-Net on latents of 512 pixels, told of texts by CLIP's tokens alone: 2,048 a step.

    Run:     diptych pretrain latent_diffusion:stable_diffusion data=DIR parts.codec=KL# parts.text_tower=CLIP

    KL is the folder of a KL autoencoder of images of 512 pixels, CLIP that of any model with a text tower.
    """
    return _paper(
        side=512,
        denoiser=UNetConfig(
            widths=(320, 640, 1280, 1280),
            depth=2,
            attends=(True, True, True, False),
            heads=8,
            groups=32,
            linear_projection=False,
        ),
        schedule=NoiseScheduleConfig(
            course="scaled_linear", beta_start=0.00085, beta_end=0.012, target="epsilon", drawn="uniform"
        ),
        samples_seen=237_000 * 2048,
        global_batch=2048,
        weight_decay=1e-2,
    )


def _paper(
    side: int,
    denoiser: DenoiserConfig,
    schedule: NoiseScheduleConfig,
    samples_seen: int,
    global_batch: int,
    weight_decay: float,
) -> RunConfig:
    """Codec and texts at rest; AdamW at 1e-4 without a fall, averaged weights, a tenth of the texts dropped."""
    sees = ImageFormat(resolution=side, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    words = TextTransformerConfig(width=768, depth=12, heads=12, activation="quick_gelu", projection="linear")
    return RunConfig(
        data=LoaderConfig(augment=NO_AUGMENTATION),
        model=LatentDiffusionConfig(
            image_format=sees,
            embed_dim=768,
            codec=AutoencoderKLConfig(
                image_format=sees, convs=ConvCodecConfig(width=128, multipliers=(1, 2, 4, 4)), scaling_factor=0.18215
            ),
            text=words,
            denoiser=denoiser,
            schedule=schedule,
            sampler=SamplerConfig(name="ddim"),
            pooled=False,
            latent_scale=1.0,
            guidance=7.5,
        ),
        objective=DiffusionConfig(),
        train=TrainConfig(
            samples_seen=samples_seen,
            global_batch=global_batch,
            lr=1e-4,
            schedule="constant",
            weight_decay=weight_decay,
            betas=(0.9, 0.999),
            precision="bfloat16",
            checkpoint_activations=True,
            ema_decay=0.9999,
            freeze=("codec", "text"),
            frozen="live",
        ),
    )
