import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError
from diptych.objectives import contrastive
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.sigmoid import SigmoidConfig
from diptych.objectives.tiles import TileSize
from tests.objectives.tile_cases import LargestTensor
from tests.objectives.tiny_model import TinyConfig, tiny_batch
from tests.reference import contrastive as plain

TEXT_IDS, IMAGE_IDS = [7, 1, 7, 3, 4, 1], [0, 1, 2, 3, 3, 5]


def _embeds(n=6, dtype=torch.float32):
    g = torch.Generator().manual_seed(3)
    return [normalize(torch.randn(n, 5, generator=g), dim=1).to(dtype).requires_grad_() for _ in range(2)]


@pytest.mark.parametrize("duplicates", ["mask", "positives", "ignore"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_plain_loops_in_value_and_gradient(duplicates, smoothing):
    config = ContrastiveConfig(duplicates=duplicates, label_smoothing=smoothing)
    objective = config.build(TinyConfig().build(20))
    image, text = _embeds()
    batch = tiny_batch(text_ids=TEXT_IDS, image_ids=IMAGE_IDS)
    losses = objective.loss({"image": image, "text": text}, batch)
    losses.total.backward()

    image_2, text_2 = _embeds(dtype=torch.float64)
    scale = objective.model.log_logit_scale.detach().double().requires_grad_()
    expected = plain.info_nce(image_2, text_2, scale, TEXT_IDS, IMAGE_IDS, duplicates, smoothing)
    expected.backward()
    assert losses.total.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(image.grad.double(), image_2.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.grad.double(), text_2.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(objective.model.log_logit_scale.grad.double(), scale.grad, atol=1e-5, rtol=1e-5)
    assert losses.count.item() == 6
    assert (losses.parts["i2t"] + losses.parts["t2i"]).item() / 2 == pytest.approx(losses.total.item(), abs=1e-6)


def test_without_duplicates_it_is_two_cross_entropies():
    objective = ContrastiveConfig(label_smoothing=0.2).build(TinyConfig().build(20))
    image, text = _embeds()
    logits = 10 * image @ text.T
    own = torch.arange(6)
    expected = cross_entropy(logits, own, label_smoothing=0.2) + cross_entropy(logits.T, own, label_smoothing=0.2)
    loss = objective.loss({"image": image, "text": text}, tiny_batch())
    assert loss.total.item() == pytest.approx(expected.item() / 2, abs=1e-5)


def test_a_batch_of_copies_is_finite_and_teaches_nothing():
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    image, text = _embeds()
    losses = objective.loss({"image": image, "text": text}, tiny_batch(text_ids=[5] * 6))
    losses.total.backward()
    assert losses.total.item() == pytest.approx(0, abs=1e-6)
    assert image.grad.abs().max() < 1e-6


def test_a_scale_of_a_hundred_and_bfloat16_around_it_stay_finite_and_exact():
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    with torch.no_grad():
        objective.model.log_logit_scale.fill_(math.log(100))
    image, _ = _embeds()
    plainly = objective.loss({"image": image, "text": -image.detach()}, tiny_batch()).total
    assert torch.isfinite(plainly)
    with torch.autocast("cpu", torch.bfloat16):
        assert objective.loss({"image": image, "text": -image.detach()}, tiny_batch()).total == plainly


def test_health_names_chance_duplicates_and_cosines():
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    image, text = _embeds()
    batch = tiny_batch(text_ids=TEXT_IDS, image_ids=IMAGE_IDS)
    health = objective.health({"image": image, "text": text}, batch)
    cosines = image @ text.T
    assert health["positive_cosine"] == pytest.approx(cosines.diagonal().mean().item(), abs=1e-6)
    others = cosines[~torch.eye(6, dtype=torch.bool)]
    assert health["negative_cosine"] == pytest.approx(others.mean().item(), abs=1e-6)
    assert health["duplicate_captions"] == pytest.approx(4 / 6)
    assert health["duplicate_images"] == pytest.approx(2 / 6)
    assert health["logit_scale"] == pytest.approx(10, abs=1e-4)
    # six rows, each of which loses exactly one candidate to its duplicate
    assert health["chance_loss"] == pytest.approx(math.log(5), abs=1e-6)
    assert health["chance_terms"] == pytest.approx(5, abs=1e-4)
    assert objective.health({"image": image, "text": text})["chance_loss"] == pytest.approx(math.log(6))


def test_a_model_that_guesses_sits_at_the_chance_loss():
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    batch = tiny_batch(text_ids=TEXT_IDS, image_ids=IMAGE_IDS)
    same = {"image": torch.ones(6, 1), "text": torch.ones(6, 1)}
    assert objective.loss(same, batch).total.item() == pytest.approx(
        objective.health(same, batch)["chance_loss"], abs=1e-5
    )


def test_refusals_say_what_to_do():
    model = TinyConfig().build(20)
    objective = ContrastiveConfig().build(model)
    bare = replace(tiny_batch(), text_ids=None, image_ids=None)
    with pytest.raises(ConfigError, match="duplicates must be 'ignore'"):
        objective(bare)
    assert torch.isfinite(ContrastiveConfig(duplicates="ignore").build(model)(bare).total)
    with pytest.raises(ConfigError, match="label_smoothing must be at least 0"):
        ContrastiveConfig(label_smoothing=1.0).build(model)
    with pytest.raises(ConfigError, match="images and texts"):
        objective(replace(bare, images=None))
    del model.log_logit_scale
    with pytest.raises(ConfigError, match="log_logit_scale"):
        ContrastiveConfig().build(model)


def test_a_bias_that_a_softmax_cannot_train_is_frozen_and_said():
    objective = ContrastiveConfig().build(TinyConfig(bias=True).build(20))
    assert not objective.model.logit_bias.requires_grad


@pytest.mark.parametrize("config", [ContrastiveConfig(label_smoothing=0.1), SigmoidConfig(duplicates="positives")])
def test_no_tensor_has_an_entry_for_each_two_pairs(config, monkeypatch):
    """Neither loss, gradient, health nor chance: memory grows with the vectors alone."""
    monkeypatch.setattr(contrastive, "tile_size", lambda device: TileSize(32, 32, 0))
    objective, n, e = config.build(TinyConfig(bias=True).build(20)), 400, 5
    image, text = _embeds(n)
    batch = Batch(text_ids=torch.arange(n) // 2, image_ids=torch.arange(n) % 350)
    with LargestTensor() as watch:
        losses = objective.loss({"image": image, "text": text}, batch)
        losses.total.backward()
        objective.health({"image": image, "text": text}, batch)
    assert text.grad is not None
    assert watch.elements == n * e
