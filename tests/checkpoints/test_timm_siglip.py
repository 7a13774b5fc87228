"""Tests of SigLIP's image towers by timm's names. Parity is tested with open_clip's in test_open_clip.py."""

from pathlib import Path

import pytest
import torch

from diptych.checkpoints import timm_siglip
from diptych.checkpoints.open_clip import write
from diptych.checkpoints.timm_siglip import activation_of
from diptych.core.errors import CheckpointError
from tests.checkpoints.tiny import siglip_config, trained


def test_our_siglip_fits_open_clip_only_in_the_sizes_that_timm_has(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"timm has by name.*Use to-transformers"):
        write(trained(siglip_config()), tmp_path / "out")
    base = siglip_config().image.replace(width=768, depth=12, heads=12, patch_size=16, activation="gelu")
    assert timm_siglip.settings(base, 224)["timm_model_name"] == "vit_base_patch16_siglip_224"
    with pytest.raises(CheckpointError, match="activation must be 'gelu', got 'gelu_tanh'"):
        timm_siglip.settings(base.replace(activation="gelu_tanh"), 224)


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_siglip_224",
        "vit_base_patch32_siglip_256",
        "vit_so400m_patch16_siglip_384",
        "vit_large_patch16_siglip_512",
    ],
)
def test_activations_of_timm_towers_are_those_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm")

    with torch.device("meta"):
        trunk = timm.create_model(name, depth=1, num_classes=0)
    kind = type(trunk.blocks[0].mlp.act).__name__
    assert activation_of(name) == {"GELU": "gelu", "GELUTanh": "gelu_tanh", "GELU_Tanh": "gelu_tanh"}[kind]


def test_every_size_that_is_written_is_one_that_timm_has() -> None:
    timm = pytest.importorskip("timm")
    known = set(timm.list_models("vit_*_siglip_*"))
    assert all(f"vit_{name}" in known for name in timm_siglip._KNOWN)


def test_a_tower_with_mean_pooling_or_another_trunk_is_refused() -> None:
    for vision in (
        {"timm_model_name": "vit_base_patch16_siglip_gap_224", "timm_pool": "avg"},
        {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "avg"},
        {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "mlp"},
    ):
        with pytest.raises(CheckpointError, match="timm's image tower"):
            timm_siglip.config(vision, {})
    with pytest.raises(CheckpointError, match=r"must hold visual\.trunk"):
        timm_siglip.config(
            {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"}, {}
        )
