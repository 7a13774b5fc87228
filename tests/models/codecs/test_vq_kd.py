"""VQ-KD: codes that tell a frozen teacher's features."""

import pytest
import torch
import torch.nn.functional as F

from diptych.checkpoints.native import save_pretrained
from diptych.core.errors import ConfigError
from diptych.models.capabilities import capabilities_of
from diptych.train.parts import fill_part, with_part
from tests.checkpoints.tiny import clip_config, trained
from tests.models.codecs.small import KEYS, configs, pictures, small


def test_the_teacher_is_told_and_learns_nothing():
    codec = small("vq_kd").train()
    out = codec(pictures(), KEYS)
    assert out.found is None
    told = codec.features_of(codec.quantizer(codec._vectors(codec.at_side(pictures()))).vectors)
    taught = codec.taught(codec.at_side(pictures()))
    assert told.shape == taught.shape == (4, 16, 24)
    torch.testing.assert_close(out.terms["away"].value, 1 - F.cosine_similarity(told, taught, dim=2).mean(1))
    sum(t.value.sum() for t in out.terms.values()).backward()
    silent = {n for n, p in codec.named_parameters() if p.requires_grad and p.grad is None}
    assert not silent
    assert all(p.grad is None for p in codec.teacher.parameters())
    assert codec.image_tower.patch_embed.weight.grad.any()


def test_the_teacher_is_shown_images_at_its_own_side_and_without_its_cls_token():
    codec = small("vq_kd").eval()
    pixels = codec.at_side(pictures())
    large = F.interpolate(pixels, (32, 32), mode="bicubic", antialias=True, align_corners=False)
    wanted = codec.teacher.tokens((large - codec.pixel_mean) / codec.pixel_std)[:, 1:]
    torch.testing.assert_close(codec.taught(pixels), wanted)


def test_it_paints_nothing():
    assert "reconstruct" not in capabilities_of(small("vq_kd"))


def test_grids_must_agree():
    with pytest.raises(ConfigError, match="as many patches"):
        configs()["vq_kd"].replace(teacher_side=16).build()


def test_the_teacher_comes_from_another_model(tmp_path):
    given = trained(clip_config())
    save_pretrained(tmp_path / "clip", given.model, given.tokenizer, {})
    theirs = given.model.config
    config = with_part(configs()["vq_kd"], "teacher", theirs, "image_tower")
    config = config.replace(embed_dim=theirs.embed_dim, teacher_side=4 * theirs.image.patch_size)
    codec = config.build()
    fill_part(codec, "teacher", f"{tmp_path / 'clip'}#image_tower")
    for n, t in given.model.image_tower.state_dict().items():
        assert torch.equal(codec.teacher.state_dict()[n], t)
