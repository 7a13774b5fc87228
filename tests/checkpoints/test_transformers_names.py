"""Tests of what CLIP and SigLIP folders share: defaults of old files, shards, preprocessing in every spelling."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diptych.checkpoints import transformers_clip, transformers_siglip
from diptych.checkpoints.transformers_names import (
    ACTIVATIONS,
    block_section,
    block_settings,
    read_folder_weights,
    read_image_format,
    section,
)
from diptych.core.errors import CheckpointError
from diptych.core.image_format import CLIP_MEAN, ImageFormat
from diptych.nn.block import BlockConfig

transformers = pytest.importorskip("transformers")
SIGLIP = transformers_siglip.IMAGE_FORMAT


@pytest.mark.parametrize("module,config", [(transformers_clip, "CLIPConfig"), (transformers_siglip, "SiglipConfig")])
def test_the_defaults_are_those_of_transformers(module: Any, config: str) -> None:
    theirs = getattr(transformers, config)().to_dict()
    for part, defaults in (("text_config", module.TEXT_DEFAULTS), ("vision_config", module.VISION_DEFAULTS)):
        for name, value in defaults.items():
            assert theirs[part].get(name, value) == value, f"{part}.{name}"


def test_an_old_section_wins_entirely_as_it_does_there() -> None:
    theirs = {"text_config": {"hidden_size": 3, "hidden_act": "gelu"}, "text_config_dict": {"hidden_size": 5}}
    defaults = {"hidden_size": 7, "hidden_act": "quick_gelu"}
    assert section(theirs, "text_config", defaults) == {"hidden_size": 5, "hidden_act": "quick_gelu"}
    assert section({"text_config": None}, "text_config", defaults) == defaults


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_tanh", "relu"])
def test_a_block_there_and_back_is_the_same(activation: str) -> None:
    config = BlockConfig(width=1152, heads=16, mlp_ratio=3.7362, depth=3, activation=activation, norm_eps=1e-6)
    theirs = block_section(config)
    assert theirs["intermediate_size"] == 4304
    back = BlockConfig(**block_settings(theirs))
    assert back.mlp_width == config.mlp_width
    assert back.replace(mlp_ratio=config.mlp_ratio) == config


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n not in ("gelu_new",)])
def test_activations_compute_the_same(name: str) -> None:
    from transformers.activations import ACT2FN

    from diptych.nn.mlp import activate

    x = torch.linspace(-4, 4, 99)
    torch.testing.assert_close(activate(x, ACTIVATIONS[name]), ACT2FN[name](x), rtol=1e-6, atol=1e-6)


def test_shards_are_found_by_their_index_and_stay_in_their_folder(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(read_folder_weights(tmp_path)) == {"a", "b"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x"}}))
    with pytest.raises(CheckpointError, match="files of its own folder"):
        read_folder_weights(tmp_path)
    with pytest.raises(CheckpointError, match="holds neither"):
        read_folder_weights(tmp_path / "nothing")


@pytest.mark.parametrize(
    "settings,default,resize",
    [
        ({"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}, ImageFormat(), "crop"),
        ({"size": 32, "crop_size": 32, "do_center_crop": True}, ImageFormat(), "crop"),
        ({"size": {"height": 32, "width": 32}, "do_center_crop": False}, ImageFormat(), "squash"),
        ({"size": {"height": 32, "width": 32}, "resample": 2}, SIGLIP, "squash"),
        ({"size": 32}, SIGLIP, "squash"),
    ],
)
def test_preprocessing_is_read_in_every_spelling(
    tmp_path: Path, settings: dict[str, Any], default: ImageFormat, resize: str
) -> None:
    for name, content in (
        ("preprocessor_config.json", settings),
        ("processor_config.json", {"image_processor": settings}),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(json.dumps(content))
        found = read_image_format(folder, 32, default)
        assert found.resize == resize
        assert found.resolution == 32
        assert found.mean == default.mean
        assert found.interpolation == ("bilinear" if settings.get("resample") == 2 else "bicubic")


def test_missing_preprocessing_is_what_the_model_type_is_known_by_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_image_format(tmp_path, 32, ImageFormat()).mean == CLIP_MEAN
    assert read_image_format(tmp_path, 32, SIGLIP).mean == (0.5, 0.5, 0.5)
    assert "says nothing of preprocessing" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"do_rescale": False}, "not scaled by 1/255"),
        ({"rescale_factor": 1.0}, "not scaled by 1/255"),
        ({"resample": 0}, "resample 0"),
        ({"size": {"shortest_edge": 40}}, "resized to"),
        ({"size": {"height": 32, "width": 40}}, "resized to"),
        ({"crop_size": {"height": 32, "width": 40}}, "crop_size must be one side"),
    ],
)
def test_preprocessing_that_we_cannot_do_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=message):
        read_image_format(tmp_path, 32, ImageFormat())


def test_pixels_that_are_not_normalised_have_mean_0_and_std_1(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "size": 32}))
    found = read_image_format(tmp_path, 32, ImageFormat())
    assert (found.mean, found.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
