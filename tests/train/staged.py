"""Tiny runs of writers: a language model, and one that reads images with it, as stages of one run."""

from pathlib import Path

import torch

from diptych.core.distributed import shutdown
from diptych.core.image_format import ImageFormat
from diptych.data.loader import LoaderConfig
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.language_model import LanguageModelConfig
from diptych.models.prefix_lm import PrefixLMConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.train.config import RunConfig, TrainConfig
from diptych.train.stages import pretrain
from tests.processes import in_processes
from tests.train import ranks

LANGUAGE = CausalTransformerConfig(width=16, depth=1, heads=2)
FORMAT = ImageFormat(resolution=8)


def settings(**train: object) -> TrainConfig:
    """Three steps of 16 pairs unless told otherwise."""
    plain = {"samples_seen": 48, "global_batch": 16, "lr": 1e-2, "warmup_samples": 16, "log_every_samples": 16}
    return TrainConfig(**(plain | {"val_batches": 1} | train))


def language_run(data: Path | str = "", **train: object) -> RunConfig:
    """A language model on the captions alone, as the stage "lm"."""
    return RunConfig(
        stage="lm",
        data=LoaderConfig(path=str(data), workers=0),
        model=LanguageModelConfig(image_format=FORMAT, context_length=16, language=LANGUAGE),
        objective=CausalLMConfig(),
        train=settings(**train),
    )


def prefix_run(data: Path | str = "", **train: object) -> RunConfig:
    """Images as a prefix of a language model's text; everything trains."""
    image = VisionTransformerConfig(patch_size=4, width=16, depth=1, heads=2)
    return RunConfig(
        recipe="tiny_prefix",
        data=LoaderConfig(path=str(data), workers=0),
        model=PrefixLMConfig(image_format=FORMAT, context_length=16, embed_dim=8, image=image, language=LANGUAGE),
        objective=CausalLMConfig(),
        train=settings(**train),
    )


def frozen_run(data: Path | str = "", stage: dict[str, object] | None = None, **train: object) -> RunConfig:
    """Frozen (Tsimpoukelli et al. 2021) in two stages: a language model, then images into it while it rests."""
    run = prefix_run(data, **({"freeze": ("language",)} | train))
    before = (language_run(data, **(stage or {})),)
    return run.replace(before=before, parts={"language": "stage:lm"}, tokenizer="stage:lm")


def pretrain_together(folder: Path, world: int = 2) -> None:
    """Train both stages over FOLDER/data in FOLDER/together on several processes, and resume what is done."""
    in_processes(_pretrain, (world, str(folder)), world)


def _pretrain(rank: int, world: int, folder: str) -> None:
    ranks._join(rank, world, folder)
    for resume in (False, True):
        pretrain(frozen_run(Path(folder) / "data"), Path(folder) / "together", resume, torch.device("cpu"))
    shutdown()
