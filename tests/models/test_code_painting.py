"""Codes are drawn as settings say, and the codec is no part of what trains."""

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.code_painting import draw_codes, guided
from diptych.models.painting import Painting
from tests.models.test_dalle import small_dalle
from tests.reference.dalle import draw


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.6}, {"top_k": 5, "top_p": 0.5}]
)
def test_codes_are_those_of_drawing_plainly(settings):
    torch.manual_seed(0)
    how, logits, chance = Painting(**settings), 2 * torch.randn(40, 9), torch.rand(40)
    found = draw_codes(logits, chance, how)
    assert found.tolist() == [draw(row, float(u), how) for row, u in zip(logits, chance, strict=True)]
    assert torch.equal(draw_codes(logits[7:9], chance[7:9], how), found[7:9])


def test_they_come_as_often_as_they_should():
    logits, chance = torch.tensor([0.5, 0.0, 0.3, 0.2]).log(), (torch.arange(1000) + 0.5) / 1000
    found = draw_codes(logits.expand(1000, -1), chance, Painting())
    assert torch.bincount(found, minlength=4).tolist() == [500, 0, 300, 200]


def test_guidance_of_one_is_the_model_as_it_is_and_of_none_the_blind_one():
    a, b = torch.randn(2, 3, 5)
    torch.testing.assert_close(guided(a, b, 1.0), a)
    torch.testing.assert_close(guided(a, b, 0.0), b)


def test_the_codec_rests_and_does_not_learn():
    model = small_dalle().build(20).train()
    assert model.training
    assert not any(m.training for m in model.codec.modules())
    assert not any(p.requires_grad for p in model.codec.parameters())


def test_codes_are_those_of_full_precision():
    model = small_dalle().build(20)
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    wanted = model.codec.codes(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.codes(images), wanted)


def test_a_codec_that_only_reads_cannot_paint():
    model = small_dalle().build(20)
    model.codec = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError, match="whose codec makes pixels of codes; got Linear"):
        model.paint_codes(torch.zeros(1, 16, dtype=torch.int64))
