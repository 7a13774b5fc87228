"""Two towers of a few thousand weights, trained by contrast: the run that studies make in their tests."""

from typing import Any

from diptych.core.image_format import ImageFormat
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.train.config import RunConfig, TrainConfig
from tests.models.towers import small


def tiny_clip(context_length: int = 8, **train: Any) -> RunConfig:
    """`train`: other settings of training than 64 samples in steps of 16 at a rate of 1e-3."""
    model = TwoTowerConfig(
        image_format=ImageFormat(resolution=8),
        context_length=context_length,
        embed_dim=16,
        image=small(VisionTransformerConfig),
        text=small(TextTransformerConfig),
    )
    settings = TrainConfig(**{"samples_seen": 64, "global_batch": 16, "lr": 1e-3} | train)
    return RunConfig(model=model, objective=ContrastiveConfig(), train=settings)
