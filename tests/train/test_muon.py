from copy import deepcopy

import pytest
import torch
from torch import nn

from diptych.train.muon import Muon, matrix_names, orthogonal
from tests.reference import muon as reference


def _net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Module()
    net.conv = nn.Conv2d(3, 8, 3)
    net.inner = nn.Conv2d(8, 6, 3)
    net.fc_1, net.fc_2, net.same = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 32)
    net.norm = nn.LayerNorm(8)
    net.embed = nn.Embedding(10, 8)
    net.projection = nn.Linear(8, 4, bias=False)
    return net


def _optimizer(net: nn.Module, decay: float = 0.1) -> Muon:
    names = matrix_names(net)
    mine = [p for n, p in net.named_parameters() if n in names]
    rest = [p for n, p in net.named_parameters() if n not in names]
    groups = [{"params": mine, "weight_decay": decay, "muon": True}, {"params": rest, "weight_decay": decay}]
    return Muon(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-6)


def _fill_gradients(net: nn.Module, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=g)


def test_only_hidden_matrices_are_stepped_by_muon() -> None:
    assert matrix_names(_net()) == {"inner.weight", "fc_1.weight", "fc_2.weight", "same.weight"}


def test_singular_values_come_near_one() -> None:
    torch.manual_seed(1)
    wide, tall = torch.randn(2, 16, 48), torch.randn(2, 48, 16)
    for x in (wide, tall):
        s = torch.linalg.svdvals(orthogonal(x))
        assert s.min() > 0.6
        assert s.max() < 1.3


def test_steps_equal_the_plain_twin_and_adamw() -> None:
    """The same arithmetic in another order (baddbmm, stacked): fp32 rounding grows over five cubic steps to ~1e-6."""
    net, twin = _net(), _net()
    names, optimizer = matrix_names(net), _optimizer(net)
    rest = [p for n, p in twin.named_parameters() if n not in names]
    adamw = torch.optim.AdamW(rest, lr=0.01, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    momenta = {n: torch.zeros_like(p) for n, p in twin.named_parameters()}
    for step in range(3):
        _fill_gradients(net, step)
        _fill_gradients(twin, step)
        optimizer.step()
        adamw.step()
        for n, p in twin.named_parameters():
            if n in names:
                moved, momenta[n] = reference.muon_step(p.detach(), p.grad, momenta[n], 0.01, 0.1)
                p.data.copy_(moved)
    for (name, a), b in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("skipped", [0.0, 1.0])
def test_a_step_that_is_skipped_changes_nothing(skipped: float) -> None:
    net = _net()
    optimizer = _optimizer(net)
    _fill_gradients(net, 0)
    optimizer.step()
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    state = {k: {w: t.clone() for w, t in s.items()} for k, s in optimizer.state_dict()["state"].items()}
    _fill_gradients(net, 1)
    if skipped:
        net.fc_1.weight.grad[0, 0] = float("nan")
    optimizer.found_inf = torch.tensor(skipped)  # type: ignore[attr-defined]
    optimizer.step()
    for n, p in net.named_parameters():
        assert torch.equal(p, before[n]) == bool(skipped), n
    for k, s in optimizer.state_dict()["state"].items():
        for what, tensor in s.items():
            assert torch.equal(tensor, state[k][what]) == bool(skipped), (k, what)


def test_its_state_goes_through_a_checkpoint() -> None:
    net, other = _net(), _net()
    first, second = _optimizer(net), _optimizer(other)
    _fill_gradients(net, 0)
    first.step()
    other.load_state_dict(net.state_dict())
    second.load_state_dict(deepcopy(first.state_dict()))  # else they would share the tensors
    for n, o in ((net, first), (other, second)):
        _fill_gradients(n, 1)
        o.step()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
