from dataclasses import replace

import pytest
import torch

from diptych.models.language_model import LanguageModelConfig
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.train.accumulate import Accumulator
from diptych.train.sight import Sight, mismatched
from tests.models.writers import small_language, small_prefix_lm, stirred, text_batch


def _accumulator(config) -> Accumulator:
    return Accumulator(CausalLMConfig().build(stirred(config)))


def test_every_image_stands_where_another_was():
    batch = text_batch()
    other = mismatched(batch)
    assert torch.equal(other.images, batch.images[[2, 0, 1]])
    assert torch.equal(other.tokens, batch.tokens)
    cached = replace(batch, images=None, cached={"image": torch.arange(3.0)[:, None], "text": torch.zeros(3, 1)})
    assert mismatched(cached).cached["image"][:, 0].tolist() == [2, 0, 1]
    assert mismatched(text_batch((4,))) is None
    assert mismatched(replace(batch, images=None)) is None


def test_sight_is_the_difference_of_the_two_losses():
    accumulate = _accumulator(small_prefix_lm())
    batch = text_batch(tuple(range(2, 14)))
    sight = Sight(accumulate)
    with torch.no_grad():
        own, other = (accumulate.loss_only(b).total for b in (batch, mismatched(batch)))
        assert sight.loss(batch).item() == pytest.approx(own.item(), rel=1e-5)
    numbers = sight.numbers()
    assert numbers["val_loss_mismatched"] == pytest.approx(other.item(), rel=1e-5)
    assert numbers["sight_error"] > 0
    assert abs(numbers["sight"] - (other - own).item()) < 3 * numbers["sight_error"]


def test_a_blind_model_has_none():
    accumulate = _accumulator(LanguageModelConfig(language=small_language(), context_length=12))
    sight = Sight(accumulate)
    sight.loss(text_batch(tuple(range(2, 10))))
    numbers = sight.numbers()
    assert numbers["sight"] == 0
    assert numbers["sight_error"] == 0


def test_where_nothing_can_be_exchanged_nothing_is_said():
    sight = Sight(_accumulator(small_prefix_lm()))
    assert sight.loss(text_batch((4,))).item() > 0
    assert sight.numbers() == {}
