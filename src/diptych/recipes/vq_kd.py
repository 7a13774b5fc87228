"""VQ-KD (Peng et al., 2022, arXiv:2208.06366): codes that tell what a CLIP of ours sees, for what foresees codes.

The paper's values are those of its appendix: AdamW (0.9, 0.99), decay 1e-4, a cosine from 5e-5 for each 256 images,
ten epochs of warm-up of a hundred. Its teacher is OpenAI's CLIP B/16; ours is any CLIP of ours.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.models import sizes
from diptych.models.codecs.vq_kd import VQKDConfig
from diptych.models.convnet import ConvNetConfig
from diptych.nn.block import BlockConfig
from diptych.nn.quantizer import VectorQuantizerConfig
from diptych.objectives.codec import CodecObjectiveConfig
from diptych.recipes import clip
from diptych.recipes.vqvae import AUGMENT, TRAIN
from diptych.train.config import RunConfig, TrainConfig

BOOK = VectorQuantizerConfig(
    codes=8192, width=32, distance="cosine", update="ema", decay=0.99, beta=1.0, kmeans=True, revive_after=0
)
CODEC = VQKDConfig(
    image_format=sizes.tiny().image_format,
    image=ConvNetConfig(widths=(32, 64, 128), depths=(0, 1, 1), norm="group"),
    quantizer=BOOK.replace(codes=256, width=16, revive_after=50),
    decoder=BlockConfig(width=128, depth=1, heads=4),
    teacher=sizes.tiny().image,
    teacher_side=64,
    embed_dim=sizes.tiny().embed_dim,
)
"""The codec of `tiny`, for recipes that have it as a stage of theirs: its teacher is the image tower of clip:tiny."""


def tiny() -> RunConfig:
    """A small CLIP learns first, in half of clip:tiny's budget; then 256 codes, 4 x 4 of them for an image of 32
    pixels, learn to tell what its image tower sees of the image at 64.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain vq_kd:tiny data=emoji
    Cost:    about four minutes of two cores
    """
    teacher = clip.tiny()
    return RunConfig(
        before=(teacher.replace(stage="clip", evals=(), train=teacher.train.replace(samples_seen=180_000)),),
        parts={"teacher": "stage:clip#image_tower"},
        data=LoaderConfig(augment=AUGMENT),
        model=CODEC,
        objective=CodecObjectiveConfig(),
        train=TRAIN.replace(samples_seen=60_000, freeze=("teacher",), frozen="live"),
    )


def base() -> RunConfig:
    """The paper's: a ViT-B/16 sees, three blocks of its width tell; 8192 codes, 14 x 14 of them.

    Run:     diptych pretrain vq_kd:base data=DIR parts.teacher=FOLDER#image_tower

    FOLDER is a CLIP of ours, or converted into ours, with 14 x 14 patches and a projection to 512.
    """
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(flip=0.5)),
        model=VQKDConfig(image_format=ImageFormat(), quantizer=BOOK),
        objective=CodecObjectiveConfig(),
        train=TrainConfig(
            samples_seen=100 * 1_281_167,
            global_batch=512,
            lr=1e-4,
            warmup_samples=10 * 1_281_167,
            weight_decay=1e-4,
            betas=(0.9, 0.99),
            eps=1e-8,
            precision="bfloat16",
            freeze=("teacher",),
            frozen="live",
        ),
    )
