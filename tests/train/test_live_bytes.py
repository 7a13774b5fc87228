import pytest
import torch

from diptych.train.live_bytes import LiveBytes, tensors_of


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bytes_are_counted_while_tensors_live_in_both_passes(device):
    x = torch.empty(10, 100, device=device)
    linear = torch.nn.Linear(100, 50, bias=False, device=device)
    with LiveBytes(tensors_of(linear, [x])) as live:
        y = linear(x)
        assert live.now == live.peak == 4 * 10 * 50
        z = y.relu()  # which keeps its output only
        del y
        assert (live.now, live.peak) == (4 * 10 * 50, 2 * 4 * 10 * 50)
        z.sum().backward()
        assert live.now == 4 * 10 * 50 + 4 * 100 * 50  # the weight's gradient stays
    linear.zero_grad(set_to_none=True)
    with LiveBytes(tensors_of(linear, [x]), {(50, 100), (100, 50)}) as live:
        linear(x).relu().sum().backward()
        assert live.now == 0
    assert live.peak < 4 * 100 * 50


def test_views_and_what_was_there_are_not_counted():
    x = torch.ones(10)
    with LiveBytes([x]) as live:
        x.mul_(2)
        y = x[2:].view(4, 2)
        assert live.peak == 0
        y = y + 1
    assert live.peak == y.numel() * 4


def test_tensors_are_found_in_modules_and_containers():
    norm = torch.nn.BatchNorm1d(3)
    assert len(tensors_of(norm, {"a": torch.ones(1), "b": [torch.ones(2), None]})) == 5 + 2
