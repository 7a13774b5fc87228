"""Tests of what all foreign formats share."""

from pathlib import Path

import pytest
import torch

from diptych.checkpoints.foreign import Foreign, check_end, demand, demand_kind, read_object, shapes_of, square
from diptych.core.errors import CheckpointError
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from tests.checkpoints.tiny import clip_config, tokenizer, trained


def test_shapes_are_those_of_the_model_and_cost_no_random_number() -> None:
    config = clip_config()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    shapes = shapes_of(config, 300)
    assert torch.equal(torch.rand(1), expected)
    assert shapes == {n: t.shape for n, t in config.build(300).state_dict().items()}


def test_the_vocabulary_size_is_that_of_the_weights() -> None:
    mine = trained(clip_config())
    assert Foreign(mine.model.config, mine.model.state_dict(), None).vocab_size == mine.tokenizer.vocab_size


def test_every_field_that_does_not_fit_is_listed() -> None:
    config = VisionTransformerConfig(pooling="mean", patch_bias=True)
    with pytest.raises(CheckpointError, match=r"pooling must be 'cls' or 'map', got 'mean'; patch_bias must be False"):
        demand(config, {"pooling": ("cls", "map"), "patch_bias": False, "norm_pre": True}, "a format")
    demand(config, {"pooling": "mean"}, "a format")
    with pytest.raises(
        CheckpointError, match=r"an image tower that it knows \(ModifiedResNet\); got VisionTransformer"
    ):
        demand_kind(config, (ModifiedResNetConfig,), "a format", "an image tower")


def test_the_end_token_is_that_of_the_weights() -> None:
    words = tokenizer()
    check_end(words, None)
    check_end(words, words.end_id)
    with pytest.raises(CheckpointError, match=f"pools at, {words.vocab_size - 1} "):
        check_end(words, "highest")


def test_small_readers_say_what_is_wrong(tmp_path: Path) -> None:
    assert square([32, 32], "side") == square(32, "side") == 32
    for value in ([32, 40], "32", None, -1):
        with pytest.raises(CheckpointError, match="side must be one side"):
            square(value, "side")
    for text in ("[1]", "{", ""):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(CheckpointError, match="must"):
            read_object(tmp_path / "a.json")
