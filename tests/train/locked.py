"""Tiny runs with a frozen tower, or with a teacher, that read vectors from tables."""

from pathlib import Path

from diptych.checkpoints.native import save_pretrained
from diptych.core.image_format import ImageFormat
from diptych.data.augment import NO_AUGMENTATION, AugmentConfig
from diptych.data.dataset import Dataset
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.distillation import DistillationConfig
from diptych.train.build import find_tokenizer
from diptych.train.config import RunConfig
from tests.train.tiny_run import tiny_config


def small() -> TwoTowerConfig:
    """Two transformers of one block each."""
    return TwoTowerConfig(
        image_format=ImageFormat(resolution=8),
        context_length=8,
        embed_dim=8,
        image=VisionTransformerConfig(patch_size=4, width=16, depth=1, heads=2),
        text=TextTransformerConfig(width=16, depth=1, heads=2),
    )


def lit(data: Path, *freeze: str, augment: AugmentConfig = NO_AUGMENTATION, **train_settings: object) -> RunConfig:
    """Three steps of 16 pairs with the image tower frozen, unless told otherwise."""
    settings = {"freeze": freeze or ("image",), "log_every_samples": 16, "samples_seen": 48, "val_batches": 0}
    config = tiny_config(data, **(settings | train_settings))
    return config.replace(model=small(), data=config.data.replace(augment=augment))


def save_teacher(data: Path, folder: Path) -> None:
    """A model folder of fresh weights."""
    config = lit(data)
    save_pretrained(folder, config.model.build(280), find_tokenizer(config, Dataset.open(data)))


def student(data: Path, teacher: Path, **train_settings: object) -> RunConfig:
    """A run with all weights its own that follows `teacher`, its images augmented, unless told otherwise."""
    config = lit(data, **({"freeze": ("image",), "val_batches": 1} | train_settings))
    return config.replace(objective=DistillationConfig(teacher=str(teacher), weight=2.0))
