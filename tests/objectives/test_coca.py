import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.objectives.coca import ContrastiveCaptioningConfig
from diptych.objectives.contrastive import ContrastiveConfig
from tests.models.test_coca import small_coca
from tests.models.writers import stirred, text_batch
from tests.objectives import coca_ranks
from tests.objectives.tiny_model import TinyConfig


def test_it_is_the_sum_of_both_losses():
    batch = text_batch((5, 2, 7, 3))
    model = stirred(small_coca())
    pairs, captions = ContrastiveConfig().build(model)(batch), CausalLMConfig().build(model)(batch)
    losses = ContrastiveCaptioningConfig().build(model)(batch)
    torch.testing.assert_close(losses.total, pairs.total + 2 * captions.total)
    torch.testing.assert_close(losses.parts["nll"], captions.parts["nll"])
    torch.testing.assert_close(losses.parts["token_accuracy"], captions.parts["token_accuracy"])
    assert float(losses.count) == 4


def test_smoothing_is_that_of_each_loss():
    batch, model = text_batch((5, 2, 7, 3)), stirred(small_coca())
    pairs = ContrastiveConfig(label_smoothing=0.2).build(model)(batch)
    captions = CausalLMConfig(label_smoothing=0.1).build(model)(batch)
    config = ContrastiveCaptioningConfig(label_smoothing=0.2, caption_smoothing=0.1, caption_weight=0.5)
    torch.testing.assert_close(config.build(model)(batch).total, pairs.total + 0.5 * captions.total)


def same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():  # sums in another order
        torch.testing.assert_close(found[name], value, atol=2e-6, rtol=2e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(("micro_batch", "kept"), [(1, 1), (3, 0), (3, 2), (5, 1)])
def test_pieces_have_the_gradient_of_the_whole_batch(micro_batch, kept):
    same(coca_ranks.gradients(micro_batch, kept), coca_ranks.gradients(0))


def test_two_processes_have_the_gradient_of_one(tmp_path):
    expected = coca_ranks.gradients(0)
    for found in coca_ranks.compute_together(tmp_path).values():
        same(found, expected)


def test_both_halves_can_be_learnt_by_heart():
    objective, batch = ContrastiveCaptioningConfig().build(stirred(small_coca()).train()), text_batch((5, 2, 7, 3))
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    for _ in range(60):
        losses = objective(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert losses.parts["token_accuracy"] == 1
    assert objective.health(objective.encode(batch), batch)["batch_i2t_recall_at_1"] == 1


def test_a_model_that_does_only_one_is_refused():
    with pytest.raises(ConfigError, match="must be given a model that embeds and writes"):
        ContrastiveCaptioningConfig().build(TinyConfig().build(10))
