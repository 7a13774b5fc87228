"""Tests that the rules cover the tensors of CLIP as open_clip builds it, in the sizes that people have."""

import pytest
import torch

from diptych.checkpoints.clip_names import IGNORED, block_rules, resnet_rules, scale_rules, text_rules, with_counters
from diptych.checkpoints.foreign import shapes_of
from diptych.checkpoints.key_map import to_ours, to_theirs
from diptych.checkpoints.open_clip import _rules
from diptych.checkpoints.open_clip_settings import text_config, vision_config
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-plus-240", "ViT-L-14-336", "ViT-H-14", "RN50x4"])
def test_every_tensor_of_the_published_sizes_has_its_place(name: str) -> None:
    open_clip = pytest.importorskip("open_clip")
    settings = open_clip.get_model_config(name)
    with torch.device("meta"):
        theirs = open_clip.CLIP(**settings).state_dict()
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    config = TwoTowerConfig(
        image=vision_config(vision, False),
        text=text_config(text, False, None),
        embed_dim=settings["embed_dim"],
        image_format=TwoTowerConfig().image_format.replace(resolution=vision["image_size"]),
    )
    shapes = shapes_of(config, text["vocab_size"])
    ours = to_ours(_rules(config, ""), theirs, shapes, IGNORED)  # checks every name and shape, without numbers
    back = to_theirs(_rules(config, ""), ours)
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in theirs.items()}


def test_no_tensor_is_named_twice() -> None:
    rules = resnet_rules(ModifiedResNetConfig()) + text_rules(TextTransformerConfig()) + scale_rules(bias=True)
    rules += block_rules("a", "b", layer_scale=True)
    assert len({r.theirs for r in rules}) == len(rules)
    names = [n for r in rules for n in r.ours]
    assert len(set(names)) == len(names)


def test_archives_without_batch_counters_get_them() -> None:
    theirs = {"visual.bn1.running_mean": torch.zeros(2), "visual.bn2.running_mean": torch.zeros(2)}
    theirs["visual.bn2.num_batches_tracked"] = torch.tensor(5)
    found = with_counters(theirs)
    assert found["visual.bn1.num_batches_tracked"] == 0
    assert found["visual.bn2.num_batches_tracked"] == 5
