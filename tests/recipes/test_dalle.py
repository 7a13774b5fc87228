"""DALL-E's recipes: the codec comes first, and with its own settings; the paper's size is the paper's."""

import torch

from diptych.models.dalle import DalleConfig
from diptych.recipes import dalle, vqvae


def test_the_codec_is_a_stage_before():
    run = dalle.tiny()
    assert [r.stage for r in run.before] == ["codec"]
    assert run.before[0].model == vqvae.tiny().model
    assert run.parts == {"codec": "stage:codec#"}
    assert isinstance(run.model, DalleConfig)
    assert run.model.codec == run.before[0].model
    assert run.train.freeze == ("codec",)


def test_the_papers_size_is_twelve_billion():
    with torch.device("meta"):
        model = dalle.paper().model.build(16_384)
    assert 11.9e9 < sum(p.numel() for n, p in model.named_parameters() if not n.startswith("codec.")) < 12.4e9
    assert model.cells == 1024
