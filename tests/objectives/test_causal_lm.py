import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.language_model import LanguageModelConfig
from diptych.objectives.causal_lm import CausalLMConfig
from tests.models.writers import small_language, small_prefix_lm, stirred, text_batch
from tests.objectives.tiny_model import TinyConfig


def test_it_is_the_mean_negative_log_likelihood_of_a_token():
    model, batch = stirred(small_prefix_lm()), text_batch()
    losses = CausalLMConfig().build(model)(batch)
    grid = model.log_likelihood(batch.images, batch.tokens, batch.lengths)
    assert losses.count == 11
    torch.testing.assert_close(losses.total, -grid.diagonal().sum() / 11, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses.parts["nll"], losses.total.detach())


def test_pieces_add_up_and_every_parameter_is_reached():
    objective = CausalLMConfig(label_smoothing=0.1).build(stirred(small_prefix_lm()))
    batch = text_batch((5, 2, 7, 3))
    whole = objective(batch)
    parts = [objective(batch.slice(i, i + 2)) for i in (0, 2)]
    mean = sum(p.total * p.count for p in parts) / sum(p.count for p in parts)
    torch.testing.assert_close(mean, whole.total)
    whole.total.backward()
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)


def test_a_model_of_text_alone_reads_no_images():
    config = LanguageModelConfig(context_length=12, language=small_language())
    assert CausalLMConfig().build(stirred(config)).uses == {"text"}


def test_a_model_that_does_not_write_is_refused():
    with pytest.raises(ConfigError, match="must be given a model that writes"):
        CausalLMConfig().build(TinyConfig().build(10))
