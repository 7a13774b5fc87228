import math

import pytest
import torch

from diptych.nn.denoiser import Condition, TwoLayers, time_waves


@pytest.mark.parametrize("shift", [0, 1])
def test_times_are_waves(shift):
    times = torch.tensor([0.0, 3.5, 900.0])
    found = time_waves(times, 8, shift)
    for row, t in zip(found.tolist(), times.tolist(), strict=True):
        angles = [t * 10_000 ** (-j / (4 - shift)) for j in range(4)]
        wanted = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert row == pytest.approx(wanted, abs=1e-4)  # angles of up to 900 in float32
    assert time_waves(times, 7, shift).shape == (3, 7)


def test_a_condition_says_what_may_be_seen():
    tokens = torch.randn(3, 4, 2)
    assert Condition(tokens).mask() is None
    plan = Condition(tokens, torch.tensor([4, 1, 0])).mask()
    assert plan.allowed.shape == (3, 1, 1, 4)
    assert plan.sees[:, 0, 0, 0].tolist() == [True, True, False]
    rows = Condition(tokens, torch.tensor([4, 1, 0]), tokens[:, 0]).take(torch.tensor([2, 2]))
    assert torch.equal(rows.tokens, tokens[[2, 2]])
    assert rows.lengths.tolist() == [0, 0]
    assert rows.labels is None


def test_two_layers_have_their_own_nonlinearity():
    x = torch.randn(5, 3)
    for kind, f in (("silu", torch.nn.functional.silu), ("gelu_tanh", torch.nn.GELU("tanh"))):
        two = TwoLayers(3, 4, kind)
        torch.testing.assert_close(two(x), two.fc_2(f(two.fc_1(x))))
