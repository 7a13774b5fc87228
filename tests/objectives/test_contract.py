"""What every file of the folder promises, whatever it minimises."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from diptych import objectives
from diptych.core.batch import Batch
from diptych.core.config import from_json, to_json
from diptych.models.model import Model
from diptych.objectives.objective import Objective, ObjectiveConfig
from tests.models.small_blip2 import small_blip2
from tests.models.test_coca import small_coca
from tests.models.test_word_predictor import small_word_predictor
from tests.models.writers import small_prefix_lm, stirred, text_batch
from tests.objectives.tiny_model import Tiny, TinyConfig, tiny_batch

NEEDS = {"distillation": {"teacher_scale": 20.0}}
"""Settings without which a module's objective cannot be."""
MODELS: dict[str, Callable[[], Model]] = {
    "causal_lm": lambda: stirred(small_prefix_lm()),
    "bag_of_words": lambda: stirred(small_word_predictor()),
    "coca": lambda: stirred(small_coca()),
    "query_alignment": lambda: stirred(small_blip2()),
}
"""What an objective is built around, where it is not a model with two towers; else the mirrored test of an objective
has a function `contract_model` that makes it."""


def configs_of(name: str) -> list[type[ObjectiveConfig]]:
    """The settings of objectives that a module holds: one, or none where it is a part of others."""
    module = importlib.import_module(f"diptych.objectives.{name}")
    return [
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, ObjectiveConfig) and c.__module__ == module.__name__ and not c.abstract
    ]


MODULES = [m.name for m in pkgutil.iter_modules(objectives.__path__) if configs_of(m.name)]


def model_for(name: str) -> Model:
    """What the objective of that module is built around."""
    if name in MODELS:
        return MODELS[name]()
    mirror = importlib.import_module(f"tests.objectives.test_{name}")
    made: Model = getattr(mirror, "contract_model", lambda: TinyConfig(bias=True).build(20))()
    return made


def config_of(name: str) -> ObjectiveConfig:
    """The one config of a module, with its defaults."""
    found = configs_of(name)
    assert len(found) == 1, f"{name} must hold one ObjectiveConfig"
    return found[0]()


@pytest.fixture(params=MODULES)
def objective(request) -> Objective:
    config = config_of(request.param)
    return config.replace(**NEEDS.get(request.param, {})).build(model_for(request.param)).train()


def batch_of_8(objective: Objective) -> Batch:
    """With what an objective that has a teacher wants besides."""
    if not isinstance(objective.model, Tiny):
        return text_batch((5, 2, 7, 3, 4, 6, 2, 5), side=objective.model.config.image_format.resolution)
    teacher = {f"teacher_{kind}": torch.randn(8, 6) for kind in ("image", "text")}
    return replace(tiny_batch(8), cached=teacher)


@pytest.mark.parametrize("name", MODULES)
def test_the_config_reads_back_equal(name):
    assert from_json(to_json(config_of(name))) == config_of(name)


def test_losses_are_finite_float32_scalars_that_reach_every_trainable_parameter(objective):
    losses = objective(batch_of_8(objective))
    assert losses.total.shape == ()
    assert losses.total.dtype == torch.float32
    assert float(losses.count) > 0
    assert all(not part.requires_grad and part.shape == () for part in losses.parts.values())
    losses.total.backward()
    for name, p in objective.named_parameters():
        assert not p.requires_grad or (p.grad is not None and torch.isfinite(p.grad).all()), name


def test_what_couples_pairs_splits_into_encode_and_loss(objective):
    batch = batch_of_8(objective)
    if not objective.couples_pairs:
        half = [objective(batch.slice(i, i + 4)) for i in (0, 4)]
        mean = sum(float(x.total) * float(x.count) for x in half) / sum(float(x.count) for x in half)
        assert mean == pytest.approx(objective(batch).total.item(), rel=1e-5)
        return
    encoded = objective.encode(batch)
    assert all(len(rows) == 8 for rows in encoded.values())
    bare = type(batch)(text_ids=batch.text_ids, image_ids=batch.image_ids)
    assert objective.loss(encoded, bare).total.item() == pytest.approx(objective(batch).total.item(), rel=1e-6)
    health = objective.health(encoded, bare)
    assert {"chance_loss", "logit_scale", "duplicate_captions", "duplicate_images"} <= health.keys()
    assert all(isinstance(v, float) for v in health.values())
