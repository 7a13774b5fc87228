"""Locked-image tuning (Zhai et al., 2022, arXiv:2111.07991): a trained image tower stays as it is, and a text tower
learns to name what it sees. The image tower is computed once and read from a table.
"""

from diptych.data.augment import NO_AUGMENTATION
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models import sizes
from diptych.models.packaged import PREFIX, image_format, image_tower, text_tower
from diptych.models.two_tower import TwoTowerConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.train.config import RunConfig, TrainConfig

IMAGE, TEXT = "efficientnet_lite0", "minilm"


def tiny() -> RunConfig:
    """ImageNet's EfficientNet-Lite0, locked, and MiniLM's sentence encoder, tuned: both come in packages.

    As in the paper the image has no projection: text comes to its 1280 numbers, through a map that is drawn anew and
    learns ten times as fast as the encoder beneath it. Pictures are looked at with 128 pixels a side.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain lit:tiny data=emoji
    Cost:    a minute and a half of two cores
    Expect:  text-to-image R@1 of 13.3 % [11.8, 14.9] on the test artist (chance 0.05 %)
    """
    return RunConfig(
        data=LoaderConfig(augment=NO_AUGMENTATION),
        tokenizer=f"{PREFIX}{TEXT}",
        model=TwoTowerConfig(
            image_format=image_format(IMAGE, 128).replace(resize="pad"),
            context_length=32,
            embed_dim=1280,
            image=image_tower(IMAGE),
            text=text_tower(TEXT).replace(projection="linear"),
        ),
        objective=ContrastiveConfig(label_smoothing=0.1),
        train=TrainConfig(
            samples_seen=40_000,
            global_batch=256,
            lr=1e-4,
            weight_decay=0.1,
            betas=(0.9, 0.98),
            precision="bfloat16",
            freeze=("image",),
            rates=(("text_tower.projection.*", 10.0), ("log_logit_scale", 10.0)),
        ),
        evals=(RetrievalConfig(captions="first"),),
    )


def b16() -> RunConfig:
    """ViT-B/16, locked, and a text tower of BERT-base's size from scratch, with the paper's batch, rate and decay.

    Run:     diptych pretrain lit:b16 data=DIR parts.image_tower=FOLDER

    FOLDER is any model of ours or converted into ours: its image tower's weights and settings are taken. Where they
    have a projection, model.embed_dim must be its width.
    """
    return RunConfig(
        data=LoaderConfig(augment=NO_AUGMENTATION),
        model=sizes.lit_b16(),
        objective=ContrastiveConfig(),
        train=TrainConfig(
            samples_seen=60_000 * 16_384,
            global_batch=16_384,
            lr=1e-3,
            weight_decay=1e-4,
            betas=(0.9, 0.95),
            precision="bfloat16",
            freeze=("image",),
        ),
        evals=(RetrievalConfig(),),
    )
