"""unCLIP, or DALL-E 2 (Ramesh et al., 2022, arXiv:2204.06125): CLIP, a prior from texts to its image vectors, and a
decoder from these to images."""

from diptych.data.augment import NO_AUGMENTATION
from diptych.data.loader import LoaderConfig
from diptych.models import sizes
from diptych.models.prior import PriorConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.unclip import UnClipConfig
from diptych.nn.block import BlockConfig
from diptych.nn.noise_schedule import NoiseScheduleConfig
from diptych.nn.samplers import SamplerConfig
from diptych.nn.unet import UNetConfig
from diptych.objectives.diffusion import DiffusionConfig
from diptych.recipes import clip, latent_diffusion
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """Three runs: clip:tiny, shortened; a prior of two blocks over its vectors; and the decoder of
    latent_diffusion:tiny_pixels, told of the image's vector besides the text.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain unclip:tiny data=emoji
    Cost:    about nine minutes of two cores
    Expect:  another CLIP ranks the text that a picture was painted for 16th of 300 [13, 20] by the median (chance 150,
             real pictures 2nd), painted at painting.guidance=3 painting.steps=50 for the test artist's names
    """
    seeing, painting = clip.tiny(), latent_diffusion.tiny_pixels()
    prior = PriorConfig(
        image_format=sizes.tiny().image_format,
        context_length=sizes.tiny().context_length,
        clip=sizes.tiny(),
        transformer=BlockConfig(width=192, depth=2, heads=3),
    )
    decoder = {name: getattr(painting.model, name) for name in type(painting.model).model_fields}
    decoder |= {"prior": prior, "image_format": prior.image_format, "condition_dropout": 0.5}
    rests = {"frozen": "live", "channels_last": False}
    return painting.replace(
        before=(
            seeing.replace(stage="clip", train=seeing.train.replace(samples_seen=180_000), evals=()),
            painting.replace(
                stage="prior",
                model=prior,
                parts={"clip": "stage:clip#"},
                train=painting.train.replace(samples_seen=60_000, global_batch=128, freeze=("clip",), **rests),
                evals=(),
            ),
        ),
        parts={"prior": "stage:prior#"},
        model=UnClipConfig(**decoder),
        train=painting.train.replace(freeze=("prior",), **rests),
        evals=(),
    )


def prior() -> RunConfig:
    """The paper's prior over ViT-L/14's vectors, 2048 wide, 24 blocks (its table 3): 600,000 steps of 4,096.

    Run:     diptych pretrain unclip:prior data=DIR parts.clip=CLIP# tokenizer=CLIP

    CLIP is the folder of a dual encoder of that size.
    """
    towers = sizes.vit_l14("quick_gelu")
    return RunConfig(
        data=LoaderConfig(augment=NO_AUGMENTATION),
        model=PriorConfig(
            image_format=towers.image_format,
            clip=towers,
            transformer=BlockConfig(width=2048, depth=24, heads=32),
            sampler=SamplerConfig(name="ddim", steps=64),
            guidance=4.0,
        ),
        objective=DiffusionConfig(),
        train=_paper(samples_seen=600_000 * 4096, global_batch=4096, lr=1.1e-4, weight_decay=6.0e-2, resting="clip"),
    )


def decoder() -> RunConfig:
    """The paper's decoder of 64 pixels (its table 3): a U-Net 512 channels wide that attends at 32, 16 and 8 places a
    side, cosine betas, 800,000 steps of 2,048. Heads are 32 at every width, where the paper's are 64 channels wide, and
    texts as long as CLIP's. Enlarging to 256 and 1024 pixels is not here.

    Run:     diptych pretrain unclip:decoder data=DIR parts.prior=PRIOR# tokenizer=PRIOR

    PRIOR is the folder of a run of unclip:prior; its CLIP sees images of 224 pixels, which are shrunk to be painted.
    """
    before = prior().model
    assert isinstance(before, PriorConfig)
    return RunConfig(
        data=LoaderConfig(augment=NO_AUGMENTATION),
        model=UnClipConfig(
            image_format=before.image_format,
            painted_side=64,
            embed_dim=2048,
            prior=before,
            text=TextTransformerConfig(width=2048, depth=24, heads=32),
            denoiser=UNetConfig(
                widths=(512, 1024, 1536, 2048), depth=3, attends=(False, True, True, True), heads=32, groups=32
            ),
            schedule=NoiseScheduleConfig(course="cosine", target="epsilon", drawn="uniform"),
            sampler=SamplerConfig(name="ddim", steps=250, clip=1.0),
        ),
        objective=DiffusionConfig(),
        train=_paper(samples_seen=800_000 * 2048, global_batch=2048, lr=1.2e-4, weight_decay=0.0, resting="prior"),
    )


def _paper(samples_seen: int, global_batch: int, lr: float, weight_decay: float, resting: str) -> TrainConfig:
    return TrainConfig(
        samples_seen=samples_seen,
        global_batch=global_batch,
        lr=lr,
        weight_decay=weight_decay,
        betas=(0.9, 0.96 if resting == "clip" else 0.999),
        precision="bfloat16",
        checkpoint_activations=True,
        ema_decay=0.9999,
        freeze=(resting,),
        frozen="live",
    )
