"""CLIP (Radford et al., 2021, arXiv:2103.00020): two towers and the symmetric contrastive loss.

Small recipes are of our own making and say what they were measured to reach; the papers' sizes follow the paper's
optimizer (section 2.5 and appendix F) and leave rate and warm-up to the budget, so that small data is not all warm-up.
"""

from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models import sizes
from diptych.models.two_tower import TwoTowerConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """A small residual conv tower at 32 pixels and a one-layer text tower: minutes on two CPU cores.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain clip:tiny data=emoji
    Cost:    about five minutes of two cores
    Expect:  text-to-image R@1 of 54.3 % [52.1, 56.8] on the test artist (chance 0.05 %); LOG.md has the experiments
    """
    return RunConfig(
        data=LoaderConfig(
            augment=AugmentConfig(
                crop_scale=None,
                rotate=5,
                zoom=(0.9, 1.1),
                stretch=0.05,
                shear=0.05,
                translate=0.05,
                brightness=0.2,
                contrast=0.3,
                saturation=0.2,
                hue=0.03,
                gamma=0.3,
                grayscale=0.02,
                lighting=0.1,
                blur=0.5,
            ),
        ),
        model=sizes.tiny(),
        objective=ContrastiveConfig(label_smoothing=0.3),
        train=TrainConfig(
            samples_seen=360_000,
            global_batch=256,
            lr=3e-3,
            weight_decay=1.0,
            betas=(0.9, 0.99),
            precision="bfloat16",
            channels_last=True,
        ),
        evals=(RetrievalConfig(captions="first"),),
    )


def small() -> RunConfig:
    """ViT-S/16 at 224 pixels: for one card and some hundred thousand pairs."""
    return _paper(sizes.small(), samples_seen=12_800_000, global_batch=1024, lr=1e-3)


def vit_b32() -> RunConfig:
    """ViT-B/32, 12.8 M samples: DataComp's small scale."""
    return _paper(sizes.vit_b32(), samples_seen=12_800_000, global_batch=4096, lr=5e-4)


def vit_b16() -> RunConfig:
    """ViT-B/16, 128 M samples."""
    return _paper(sizes.vit_b16(), samples_seen=128_000_000, global_batch=8192, lr=5e-4)


def vit_l14() -> RunConfig:
    """ViT-L/14, 1.28 G samples."""
    return _paper(sizes.vit_l14(), samples_seen=1_280_000_000, global_batch=16_384, lr=4e-4)


def vit_l14_336() -> RunConfig:
    """ViT-L/14 at 336 pixels: in the paper one more epoch after ViT-L/14."""
    return _paper(sizes.vit_l14_336(), samples_seen=400_000_000, global_batch=16_384, lr=2e-5)


def rn50() -> RunConfig:
    """RN50, 128 M samples."""
    return _resnet(sizes.rn50(), 5e-4)


def rn101() -> RunConfig:
    """RN101, 128 M samples."""
    return _resnet(sizes.rn101(), 5e-4)


def rn50x4() -> RunConfig:
    """RN50x4 at 288 pixels, 128 M samples."""
    return _resnet(sizes.rn50x4(), 5e-4)


def rn50x16() -> RunConfig:
    """RN50x16 at 384 pixels, 128 M samples."""
    return _resnet(sizes.rn50x16(), 4e-4)


def rn50x64() -> RunConfig:
    """RN50x64 at 448 pixels, 128 M samples."""
    return _resnet(sizes.rn50x64(), 3.6e-4)


def _paper(model: TwoTowerConfig, samples_seen: int, global_batch: int, lr: float) -> RunConfig:
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig()),
        model=model,
        objective=ContrastiveConfig(),
        train=TrainConfig(samples_seen=samples_seen, global_batch=global_batch, lr=lr, precision="bfloat16"),
        evals=(RetrievalConfig(),),
    )


def _resnet(model: TwoTowerConfig, lr: float) -> RunConfig:
    run = _paper(model, samples_seen=128_000_000, global_batch=8192, lr=lr)
    return run.replace(train=run.train.replace(betas=(0.9, 0.999), eps=1e-8))
