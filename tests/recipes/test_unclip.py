import torch

from diptych.models.prior import Prior
from diptych.models.unclip import UnClip
from diptych.recipes import unclip


def test_the_sizes_are_about_the_paper_s():
    """A billion parameters in the prior, 3.5 in the decoder with its text encoder."""
    with torch.device("meta"):
        prior = unclip.prior().model.build(49408)
        decoder = unclip.decoder().model.build(49408)
    assert isinstance(prior, Prior)
    assert isinstance(decoder, UnClip)
    assert 1.1e9 < sum(p.numel() for p in prior.transformer.parameters()) < 1.3e9
    assert decoder.denoiser.config.widths == (512, 1024, 1536, 2048)


def test_stages_are_clip_prior_and_decoder():
    run = unclip.tiny()
    assert [r.stage for r in run.before] == ["clip", "prior"]
    assert (run.before[1].train.freeze, run.train.freeze) == (("clip",), ("prior",))
    assert run.before[1].model.clip == run.before[0].model
    assert run.model.prior == run.before[1].model
