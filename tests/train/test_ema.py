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


def test_a_device_skips_by_itself_and_moves_as_the_host_would():
    """The path of devices, run here: the same formula, rounded otherwise."""
    model = TinyConfig(batch_norm=True).build(20)
    host, device = Ema(model, 0.5), Ema(model, 0.5)
    for n, skipped in enumerate((0.0, 0.0, 1.0, 0.0, 1.0, 0.0)):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
            model.image_tower[1].num_batches_tracked.fill_(n)
        before = {k: t.clone() for k, t in device.state.items()}
        host.update(model, torch.tensor(skipped))
        device._take_in_unless(model, torch.tensor(skipped))
        assert host.updates == device.updates
        for name, t in host.state.items():
            torch.testing.assert_close(device.state[name], t, rtol=1e-5, atol=1e-6)
            if skipped:
                assert torch.equal(device.state[name], before[name])
    assert host.updates == 4
