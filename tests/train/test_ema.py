import pytest
import torch

from diptych.train.ema import Ema, averaged
from tests.objectives.tiny_model import TinyConfig


def test_the_average_follows_its_formula():
    model = TinyConfig(batch_norm=True).build(20)
    ema = Ema(model, 0.5)
    expected = model.log_logit_scale.item()
    for n in range(12):
        with torch.no_grad():
            model.log_logit_scale.fill_(float(n))
            model.image_tower[1].num_batches_tracked.fill_(n)
        ema.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    assert float(ema.state["log_logit_scale"]) == pytest.approx(expected, rel=1e-5)
    assert ema.state["image_tower.1.num_batches_tracked"] == 11
    assert ema.updates == 12


def test_the_average_is_lent_to_the_model_and_taken_back():
    model = TinyConfig().build(20)
    ema = Ema(model, 0.9)
    with torch.no_grad():
        model.log_logit_scale.fill_(3.0)
    with averaged(model, ema):
        assert model.log_logit_scale.item() == pytest.approx(2.302585)
    assert model.log_logit_scale.item() == 3.0
    with averaged(model, None):
        assert model.log_logit_scale.item() == 3.0


def test_going_on_copies_values_and_count():
    model = TinyConfig().build(20)
    a, b = Ema(model, 0.9), Ema(TinyConfig().build(20), 0.9)
    a.update(model)
    b.load(a.state, a.updates)
    assert b.updates == 1
    assert all(torch.equal(b.state[n], t) and b.state[n] is not t for n, t in a.state.items())
