import inspect

import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.models import sizes
from diptych.models.two_tower import TwoTowerConfig

PUBLISHED = {
    "vit_b32": 151_277_313,
    "vit_b16": 149_620_737,
    "vit_l14": 427_616_513,
    "vit_l14_336": 427_944_193,
    "rn50": 102_007_137,
    "rn101": 119_688_033,
    "rn50x4": 178_300_601,
    "rn50x16": 290_979_217,
    "rn50x64": 623_258_305,
    "siglip_b16": 203_155_970,
}
"""Parameters of the released weights, with their own vocabularies."""

NAMES = [n for n, f in vars(sizes).items() if inspect.isfunction(f) and not n.startswith("_")]


def config_of(name: str) -> TwoTowerConfig:
    made = getattr(sizes, name)()
    assert isinstance(made, TwoTowerConfig)
    return made


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_many_parameters_as_published(name: str) -> None:
    vocab = sizes.SIGLIP_VOCAB_SIZE if name.startswith("siglip") else sizes.CLIP_VOCAB_SIZE
    with torch.device("meta"):
        model = config_of(name).build(vocab)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_size_survives_json(name: str) -> None:
    assert from_json(to_json(config_of(name))) == config_of(name)


def test_tiny_is_tiny() -> None:
    model = config_of("tiny").build(2048).eval()
    assert sum(p.numel() for p in model.parameters()) < 10e6
    side = model.config.image_format.resolution
    assert model.embed_image(torch.zeros(1, 3, side, side, dtype=torch.uint8)).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,theirs", [("vit_b32", "ViT-B-32"), ("vit_l14_336", "ViT-L-14-336"), ("rn50", "RN50"), ("rn50x64", "RN50x64")]
)
def test_as_many_parameters_as_open_clip(name: str, theirs: str) -> None:
    open_clip = pytest.importorskip("open_clip")
    settings = dict(open_clip.get_model_config(theirs))
    with torch.device("meta"):
        peer = open_clip.CLIP(**settings)
        ours = config_of(name).build(sizes.CLIP_VOCAB_SIZE)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())
