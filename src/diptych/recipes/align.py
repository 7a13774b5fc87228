"""ALIGN (Jia et al., 2021, arXiv:2102.05918): CLIP's loss for noisy pairs that nobody has curated.

What differs from CLIP: a convolutional image tower without a projection, a text tower that sees both ways and is read
at its first token, a target smoothed by 0.1, and a temperature that is itself the parameter, from 1 on. The paper adds
the two directions of the loss where we take their mean: under Adam the same steps. It trains with LAMB; we with AdamW.
"""

from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models import sizes
from diptych.models.align import AlignConfig
from diptych.models.packaged import PREFIX
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.recipes import clip
from diptych.train.config import RunConfig, TrainConfig

STEPS, BATCH, WARMUP_STEPS = 1_200_000, 16_384, 10_000


def tiny() -> RunConfig:
    """clip:tiny with ALIGN's towers, temperature and smoothing: data, budget and rates are equal, so that the two can
    be compared.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain align:tiny data=emoji
    Cost:    about four minutes of two cores
    Expect:  text-to-image R@1 of 31.4 % [29.4, 33.6] on the test artist (chance 0.05 %)
    """
    return clip.tiny().replace(model=sizes.align_tiny(), objective=ContrastiveConfig(label_smoothing=0.1))


def base() -> RunConfig:
    """EfficientNet-B7 and BERT-base, the size of the public weights, with their vocabulary (BERT's, which a package
    ships)."""
    return _paper(sizes.align_base()).replace(tokenizer=f"{PREFIX}minilm")


def l2() -> RunConfig:
    """EfficientNet-L2 and BERT-large, the paper's own; its vocabulary was of 100,000 pieces."""
    return _paper(sizes.align_l2())


def _paper(model: AlignConfig) -> RunConfig:
    """Section 5: random crops of 289 pixels out of 346, 1.2 M steps, a rate that rises to 1e-3 and falls linearly."""
    share = (289 / 346) ** 2
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(crop_scale=(share, share), crop_ratio=(1.0, 1.0), flip=0.5)),
        model=model,
        objective=ContrastiveConfig(label_smoothing=0.1),
        train=TrainConfig(
            samples_seen=STEPS * BATCH,
            global_batch=BATCH,
            lr=1e-3,
            warmup_samples=WARMUP_STEPS * BATCH,
            schedule="constant",
            cooldown_samples=(STEPS - WARMUP_STEPS) * BATCH,
            weight_decay=1e-5,
            betas=(0.9, 0.999),
            precision="bfloat16",
        ),
        evals=(RetrievalConfig(),),
    )
