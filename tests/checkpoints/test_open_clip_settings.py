"""Tests of open_clip's configuration in our terms and back, field by field."""

from typing import Any

import pytest

from diptych.checkpoints.open_clip_settings import (
    block_settings,
    end_of,
    image_format,
    preprocess_settings,
    text_config,
    text_settings,
    vision_config,
    vision_settings,
)
from diptych.core.errors import CheckpointError
from diptych.core.image_format import ImageFormat
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from tests.checkpoints.tiny import tokenizer

TOWERS = [
    {"activation": "gelu"},
    {"activation": "gelu_tanh", "norm_eps": 1e-6, "mlp_ratio": 3.5},
    {"activation": "quick_gelu", "layer_scale": 0.1, "depth": 3},
]


@pytest.mark.parametrize("fields", TOWERS)
def test_an_image_tower_there_and_back_is_the_same(fields: dict[str, Any]) -> None:
    for more in ({}, {"norm_pre": False, "patch_dropout": 0.5, "heads": 6}):
        config = VisionTransformerConfig(**fields, **more)
        theirs = vision_settings(config, 224)
        assert vision_config(theirs, fields["activation"] == "quick_gelu") == config


@pytest.mark.parametrize("fields", TOWERS)
def test_a_text_tower_there_and_back_is_the_same(fields: dict[str, Any]) -> None:
    words = tokenizer()
    for more in ({}, {"pooling": "last", "attention": "bidirectional", "projection": "linear_bias"}):
        config = TextTransformerConfig(**fields, **more)
        theirs = text_settings(config, TwoTowerConfig(text=config), words.vocab_size, words)
        assert text_config(theirs, fields["activation"] == "quick_gelu", words) == config
        assert end_of(theirs) == (None if more else words.end_id)
    assert end_of({}) == "highest"


@pytest.mark.parametrize("width,ratio", [(1152, 3.7362), (1408, 4.3637), (1664, 4.9231), (64, 2.71), (192, 10 / 3)])
def test_hidden_widths_survive_their_cutting_where_we_round(width: int, ratio: float) -> None:
    config = VisionTransformerConfig(width=width, heads=width // 8, mlp_ratio=ratio)
    assert int(width * block_settings(config)["mlp_ratio"]) == config.mlp_width
    theirs = {"width": width, "mlp_ratio": ratio, "head_width": 8}
    assert vision_config(theirs, False).mlp_width == int(width * ratio)


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_preprocessing_there_and_back_is_the_same(resize: str) -> None:
    config = ImageFormat(resolution=64, resize=resize, interpolation="bilinear", mean=(0.1, 0.2, 0.3))
    assert image_format(preprocess_settings(config), 64) == config
    assert image_format({}, 64) == ImageFormat(resolution=64)


def test_preprocessing_that_one_side_lacks_is_refused() -> None:
    with pytest.raises(CheckpointError, match="one grey value"):
        preprocess_settings(ImageFormat(resize="pad", fill=(0, 1, 2)))
    for theirs in ({"resize_mode": "stretch"}, {"interpolation": "random"}):
        with pytest.raises(CheckpointError, match="resize_mode"):
            image_format(theirs, 32)
