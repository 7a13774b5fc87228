"""Every recipe named tiny learns: shrunk to seconds, stages and all, on a few drawn shapes, its loss falls.

A new recipe is picked up by itself. What is shrunk: widths, depths, pictures and the budget; packaged weights are left
out. What is not: the objective, what is frozen, adapters, rates of parts, the order of stages.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.core.config import Config
from diptych.core.errors import ConfigError
from diptych.data.augment import NO_AUGMENTATION
from diptych.models.model import ModelConfig
from diptych.recipes.find import recipe, recipes
from diptych.train.config import RunConfig
from diptych.train.stages import pretrain
from tests.train.tiny_run import tiny_dataset

LONG = ("albef:tiny", "autoencoder_kl:tiny", "coca:tiny", "maskvlm:tiny", "vqvae:tiny")
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if len(recipe(name).before) > 0 or name in LONG else name
    for name in sorted(recipes())
    if name.endswith(":tiny")
]
"""Those of several stages, and the LONG ones, take up to ten seconds each: the long tier."""
STEPS, BATCH = 24, 16
MORE = 16
"""Steps more that a run takes which learns through what runs before it have made, as far as they got."""
AT_MOST: dict[str, Any] = {
    "width": 32,
    "depth": 1,
    "heads": 2,
    "head_width": 16,
    "stem_width": 16,
    "hidden": 32,
    "latents": 4,
    "queries": 4,
    "resolution": 32,
}
"""What numbers in the model's settings become where they are larger."""


def shrunk(value: Any, at_most: dict[str, Any]) -> Any:
    """A model's settings, small; where a part of them does not bear it, that part stays as it is."""
    if not isinstance(value, Config):
        return value
    small = {name: shrunk(getattr(value, name), at_most) for name in type(value).model_fields}
    for name, v in small.items():
        if name in at_most and isinstance(v, int):
            small[name] = min(v, at_most[name])
        elif name in ("widths", "depths") and isinstance(v, tuple):
            small[name] = tuple(min(x, 16 if name == "widths" else 1) for x in v)
        elif name == "pretrained":
            small[name] = type(v)()
    try:
        return value.replace(**small)
    except ConfigError:
        return value


def small_model(model: ModelConfig) -> ModelConfig:
    """The smallest of some sizes that can be built: a tower without a projection is as wide as the shared space."""
    for embed_dim in (32, 16):
        small = shrunk(model, AT_MOST | {"embed_dim": embed_dim})
        try:
            with torch.device("meta"):
                small.build(300)
        except (ConfigError, RuntimeError, ValueError):
            continue
        return small
    return model


def small_run(run: RunConfig, data: Path) -> RunConfig:
    """A run of `STEPS` small steps on `data`, and the runs before it alike."""
    steps = STEPS + (MORE if run.before else 0)
    train = run.train.replace(
        samples_seen=steps * BATCH, global_batch=BATCH, micro_batch=0, lr=5e-3, warmup_samples=2 * BATCH,
        schedule="constant", cooldown_samples=0, weight_decay=0.0, precision="float32", progressive=(), val_batches=0,
        log_every_samples=BATCH, threads=1, save_every_samples=steps * BATCH, eval_every_samples=steps * BATCH,
        compile=False, ema_decay=0.0, cached_crops=0,
    )  # fmt: skip
    plain = run.data.replace(
        path=str(data), split="train", workers=0, augment=NO_AUGMENTATION, mixture=(), curriculum=None
    )
    own = "" if run.tokenizer.startswith("pretrained:") or run.tokenizer == "clip" else run.tokenizer
    before = tuple(small_run(r, data) for r in run.before)
    return run.replace(model=small_model(run.model), train=train, data=plain, tokenizer=own, evals=(), before=before)


def losses(run: Path) -> list[float]:
    """The loss of every step."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [r["loss"] for r in records if r["kind"] == "train"]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Pairs (True), and images with questions and answers (False)."""
    folder = tmp_path_factory.mktemp("data")
    return {pairs: tiny_dataset(folder / str(pairs), val=0, questions=not pairs) for pairs in (True, False)}


@pytest.mark.parametrize("name", NAMES)
def test_its_loss_falls(name: str, datasets: dict[bool, Path], tmp_path: Path):
    whole = recipe(name)
    with torch.device("meta"):
        couples = [r.objective.build(small_model(r.model).build(300)).couples_pairs for r in (*whole.before, whole)]
    run = pretrain(small_run(whole, datasets[any(couples)]), tmp_path / "run", device=torch.device("cpu"))
    folders = [*(run / "stages" / r.stage for r in whole.before), run]
    for folder, one in zip(folders, (*whole.before, whole), strict=True):
        found = losses(folder)
        assert len(found) >= STEPS
        first, last = sum(found[:4]) / 4, sum(found[-4:]) / 4
        # before a language model that rests, and knows the words already, there is little left to learn
        assert last < (0.98 if one.train.freeze else 0.95) * first, f"{folder.name}: from {first:.3f} to {last:.3f}"
        assert (folder / "model" / "model.safetensors").is_file()
