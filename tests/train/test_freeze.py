from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diptych.core.errors import ConfigError
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.objective import Objective
from diptych.train.freeze import freeze, frozen_fact, frozen_state, frozen_tower, resting
from diptych.train.loop import train
from diptych.train.optimizer import build_optimizer, decayed_names, parameter_names
from tests.objectives.tiny_model import TinyConfig, tiny_batch
from tests.train.tiny_run import tiny_config


def objective(**model: object) -> Objective:
    torch.manual_seed(0)
    return ContrastiveConfig().build(TinyConfig(**model).build(20))


def test_a_frozen_tower_has_no_gradient_no_moments_and_no_decay():
    found = objective()
    freeze(found, ("image",))
    assert frozen_tower(found.model, "image")
    assert not frozen_tower(found.model, "text")  # Tiny has none of that name
    found(tiny_batch()).total.backward()
    for name, p in found.model.named_parameters():
        assert p.requires_grad is not name.startswith("image_tower.")
        assert (p.grad is None) is name.startswith("image_tower."), name
    assert not any("image_tower" in n for names in decayed_names(found) for n in names)
    optimizer = build_optimizer(found, 1e-3, 0.2, (0.9, 0.98), 1e-6)
    assert len(parameter_names(found, optimizer)) == 3


def test_patterns_freeze_parts_and_only_whole_modules_rest():
    found = objective(batch_norm=True, dropout=0.5)
    freeze(found, ("image_tower.[01].*", "token_*.weight"))
    assert resting(found.model) == ["image_tower.0", "image_tower.1", "token_embed"]
    assert not frozen_tower(found.model, "image")
    state = frozen_state(found.model)
    assert {"image_tower.1.running_mean", "image_tower.0.bias", "token_embed.weight"} <= state
    assert "image_tower.3.weight" not in state
    for _ in range(2):
        found.train()
        assert not found.model.image_tower[1].training
        assert found.model.image_tower[2].training
        assert found.model.drop.training
        found.eval()
        assert not found.model.drop.training


def test_a_bias_by_itself_is_frozen_and_its_module_stays_awake():
    found = objective(batch_norm=True)
    freeze(found, ("image_tower.1.bias",))
    assert resting(found.model) == []
    assert frozen_fact(found.model) == "image_tower.1.bias, 0.00 M of 0.00 M parameters"


@pytest.mark.parametrize(
    "words, message",
    [
        (("imag",), "Did you mean 'image'"),
        (("image_towr.*",), r"Did you mean 'image_tower\.\*'"),
        (("zzz",), "begin with: image_tower, log_logit_scale, text_projection, token_embed"),
        (("connector",), "Its parameters begin with|Did you mean"),
        (("image", "t*"), "must leave something to train"),
        (("*",), "must leave something to train"),
    ],
)
def test_words_that_name_nothing_or_everything_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        freeze(objective(), words)


def test_only_what_is_named_trains_and_freezing_goes_before_it():
    found = objective(batch_norm=True)
    freeze(found, ("image_tower.3.*",), ("image", "text_projection"))
    trained = {n for n, p in found.model.named_parameters() if p.requires_grad}
    assert trained == {f"image_tower.{n}" for n in ("0.weight", "0.bias", "1.weight", "1.bias")} | {
        "text_projection.weight"
    }
    assert resting(found.model) == ["image_tower.3", "token_embed"]
    with pytest.raises(ConfigError, match=r"train\.only must name towers .* got 'imag'"):
        freeze(objective(), (), ("imag",))
    with pytest.raises(ConfigError, match=r"must leave something to train; got train\.only=log_logit_scale"):
        freeze(objective(), (), ("log_logit_scale",))


@pytest.mark.parametrize(
    "how", [{"optimizer": "muon", "precision": "bfloat16"}, {"rates": (("text_tower.blocks.*", 3.0),)}]
)
def test_frozen_is_frozen_whatever_else_is_on(data: Path, tmp_path: Path, how: dict):
    """Every tensor outside of `only`: against decay, averages, another optimizer, another precision, rates."""
    from tests.train.locked import lit

    config = lit(data, only=("text",), frozen="live", ema_decay=0.9, weight_decay=1.0, save_every_samples=16, **how)
    config = config.replace(train=config.train.replace(freeze=("text_tower.token_embed.*",), keep_checkpoints=9))
    train(config, tmp_path)
    short, long = tmp_path / "checkpoints/000000000016", tmp_path / "checkpoints/000000000048"
    for file in ("model.safetensors", "ema.safetensors"):
        before, after = load_file(short / file), load_file(long / file)
        for name in before:
            trains = name.startswith("text_tower.") and name != "text_tower.token_embed.weight"
            assert torch.equal(before[name], after[name]) is not trains, name


@pytest.mark.parametrize("micro_batch", [0, 6])
def test_not_a_bit_of_what_is_frozen_changes(data: Path, tmp_path: Path, capsys, micro_batch: int):
    config = tiny_config(data, freeze=("image",), frozen="live", ema_decay=0.9, micro_batch=micro_batch)
    config = config.replace(model=config.model.replace(batch_norm=True))
    train(config.replace(train=config.train.replace(save_every_samples=16, keep_checkpoints=10)), tmp_path)
    said = capsys.readouterr().err
    assert "image_tower, 0.00 M of 0.00 M parameters" in said
    assert "batch norm layers" not in said  # none takes statistics
    short, long = tmp_path / "checkpoints/000000000016", tmp_path / "checkpoints/000000000128"
    for file in ("model.safetensors", "ema.safetensors"):
        before, after = load_file(short / file), load_file(long / file)
        held = {n for n in before if n.startswith("image_tower.")}
        assert "image_tower.1.running_var" in held
        assert all(torch.equal(before[n], after[n]) for n in held)
        assert not torch.equal(before["text_projection.weight"], after["text_projection.weight"])
    moments = load_file(long / "optimizer.safetensors")
    assert moments
    assert not any("image_tower" in n for n in moments)


def test_a_frozen_temperature_is_not_even_clamped():
    from tests.train.test_accumulate import small_vit

    model = small_vit().build(20)
    with torch.no_grad():
        model.log_logit_scale.fill_(7.0)
    model.log_logit_scale.requires_grad_(False)
    model.after_step()
    assert model.log_logit_scale == 7.0
