import pytest
import torch
from torch.nn.functional import normalize

from diptych.core.errors import ConfigError
from diptych.objectives.sigmoid import SigmoidConfig
from tests.objectives.tiny_model import TinyConfig, tiny_batch
from tests.reference import contrastive as plain

TEXT_IDS, IMAGE_IDS = [7, 1, 7, 3, 4, 1], [0, 1, 2, 3, 3, 5]


def _embeds(dtype=torch.float32):
    g = torch.Generator().manual_seed(3)
    return [normalize(torch.randn(6, 5, generator=g), dim=1).to(dtype).requires_grad_() for _ in range(2)]


@pytest.mark.parametrize("duplicates", ["mask", "positives", "ignore"])
def test_equals_plain_loops_in_value_and_gradient(duplicates):
    objective = SigmoidConfig(duplicates=duplicates).build(TinyConfig(bias=True).build(20))
    image, text = _embeds()
    losses = objective.loss({"image": image, "text": text}, tiny_batch(text_ids=TEXT_IDS, image_ids=IMAGE_IDS))
    losses.total.backward()

    image_2, text_2 = _embeds(torch.float64)
    model = objective.model
    scale, bias = (p.detach().double().requires_grad_() for p in (model.log_logit_scale, model.logit_bias))
    expected = plain.sigmoid(image_2, text_2, scale, bias, TEXT_IDS, IMAGE_IDS, duplicates)
    expected.backward()
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in ((image, image_2), (text, text_2), (model.log_logit_scale, scale), (model.logit_bias, bias)):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=1e-4, rtol=1e-5)
    assert sum(losses.parts.values()).item() == pytest.approx(losses.total.item(), rel=1e-5)


def test_chance_is_the_loss_of_the_best_constant_answer():
    objective = SigmoidConfig().build(TinyConfig(bias=True).build(20))
    same = {"image": torch.zeros(6, 1), "text": torch.zeros(6, 1)}
    health = objective.health(same, tiny_batch())
    assert health["chance_loss"] == pytest.approx(plain.best_constant(6))
    with torch.no_grad():
        objective.model.logit_bias.fill_(torch.logit(torch.tensor(1 / 6)))
    assert objective.loss(same, tiny_batch()).total.item() == pytest.approx(health["chance_loss"], rel=1e-5)
    assert "chance_terms" not in health


@pytest.mark.parametrize("duplicates", ["mask", "positives", "ignore"])
def test_duplicates_change_what_guessing_gives(duplicates):
    """No constant answer does better than the chance level that is named."""
    objective = SigmoidConfig(duplicates=duplicates).build(TinyConfig(bias=True).build(20))
    batch = tiny_batch(text_ids=[1, 1, 1, 4, 5, 6], image_ids=[0, 1, 2, 3, 3, 5])
    flat = {"image": torch.zeros(6, 1), "text": torch.zeros(6, 1)}
    chance = objective.health(flat, batch)["chance_loss"]
    found = []
    with torch.no_grad():
        for p in torch.linspace(0.05, 0.6, 200):
            objective.model.logit_bias.fill_(torch.logit(p))
            found.append(objective.loss(flat, batch).total.item())
    assert min(found) == pytest.approx(chance, rel=1e-4)


def test_large_logits_stay_finite():
    objective = SigmoidConfig().build(TinyConfig(bias=True).build(20))
    with torch.no_grad():
        objective.model.log_logit_scale.fill_(8.0)
    image, _ = _embeds()
    losses = objective.loss({"image": image, "text": -image}, tiny_batch())
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert torch.isfinite(image.grad).all()


def test_a_model_without_bias_is_refused():
    with pytest.raises(ConfigError, match="logit_bias"):
        SigmoidConfig().build(TinyConfig().build(20))
