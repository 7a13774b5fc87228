"""Chameleon's recipes: the codec comes first; the papers' sizes are those of their names."""

import pytest
import torch

from diptych.models.chameleon import ChameleonConfig
from diptych.recipes import chameleon, vqvae


def test_the_codec_is_a_stage_before():
    run = chameleon.tiny()
    assert run.before[0].model == vqvae.tiny().model
    assert run.parts == {"codec": "stage:codec#"}
    assert isinstance(run.model, ChameleonConfig)
    assert run.model.codec == run.before[0].model
    assert run.train.freeze == ("codec",)


@pytest.mark.parametrize(("make", "size"), [(chameleon.base_7b, 7.0e9), (chameleon.base_34b, 34e9)])
def test_the_papers_sizes_have_the_papers_contexts(make, size):
    run = make()
    with torch.device("meta"):
        model = run.model.build(65_536 - 8_192 - 2)
    assert model.language.vocab_size == 65_536
    assert model.cells == 1_024
    assert model.language.context_length == 4_096
    assert sum(p.numel() for p in model.language.parameters()) == pytest.approx(size, rel=0.05)
