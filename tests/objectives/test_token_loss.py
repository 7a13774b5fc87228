import pytest
import torch

from diptych.models.writer import NextTokens
from diptych.objectives import token_loss as module
from diptych.objectives.token_loss import each_token_loss, token_loss, writing_loss, written_rows
from tests.reference.token_loss import dense_token_loss


@pytest.mark.parametrize("smoothing, z_loss", [(0.0, 0.0), (0.1, 0.0), (0.1, 1e-2)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_value_and_gradient_are_those_of_all_logits_at_once(smoothing, z_loss, has_bias, monkeypatch):
    monkeypatch.setattr(module, "TILE", 40)  # three rows at a time
    torch.manual_seed(0)
    hidden, weight = torch.randn(8, 5, requires_grad=True), torch.randn(13, 5, requires_grad=True)
    bias = torch.randn(13, requires_grad=True) if has_bias else None
    targets, scale = torch.randint(13, (8,)), torch.rand(8)
    inputs = [x for x in (hidden, weight, bias) if x is not None]
    dense = dense_token_loss(hidden, weight, bias, targets, smoothing, z_loss, scale)
    want = torch.autograd.grad(3 * dense, inputs)
    total, parts = token_loss(hidden, weight, bias, targets, smoothing, z_loss, scale)
    found = torch.autograd.grad(3 * total, inputs)
    # sums in another order: float32 rounds them elsewhere
    torch.testing.assert_close(total, dense, atol=1e-5, rtol=1e-5)
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    torch.testing.assert_close(parts.nll, torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    assert torch.equal(parts.top, (logits.argmax(1) == targets).float())


def test_nothing_is_computed_for_what_is_frozen_and_no_tokens_are_no_loss():
    hidden, weight = torch.randn(4, 5, requires_grad=True), torch.randn(7, 5)
    token_loss(hidden, weight, None, torch.randint(7, (4,)))[0].backward()
    assert hidden.grad is not None
    total, _ = token_loss(hidden[:0], weight, None, torch.zeros(0, dtype=torch.int64))
    assert total == 0
    total.backward()


@pytest.mark.parametrize("tile", [40, 1 << 20])
@pytest.mark.parametrize("has_bias", [False, True])
def test_each_token_has_a_gradient_of_its_own(tile, has_bias, monkeypatch):
    monkeypatch.setattr(module, "TILE", tile)  # three rows at a time, formed twice; or all, whose logits are kept
    hidden, weight = torch.randn(8, 5, requires_grad=True), torch.randn(13, 5, requires_grad=True)
    bias = torch.randn(13, requires_grad=True) if has_bias else None
    targets, scale = torch.randint(13, (8,)), torch.randn(8)
    inputs = [x for x in (hidden, weight, bias) if x is not None]
    dense = dense_token_loss(hidden, weight, bias, targets, 0.1, 1e-2, scale)
    want = torch.autograd.grad(dense, inputs)
    each, parts = each_token_loss(hidden, weight, bias, targets, 0.1, 1e-2)
    found = torch.autograd.grad((scale * each).sum(), inputs)
    # sums in another order: float32 rounds them elsewhere
    torch.testing.assert_close((scale * each).sum(), dense, atol=1e-5, rtol=1e-5)
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert not parts.nll.requires_grad
    torch.testing.assert_close(parts.top, token_loss(hidden, weight, bias, targets)[1].top)


def test_each_token_under_autocast_is_that_of_the_sum():
    hidden, weight = torch.randn(8, 5, requires_grad=True), torch.randn(13, 5, requires_grad=True)
    targets = torch.randint(13, (8,))
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = token_loss(hidden, weight, None, targets)
        each, _ = each_token_loss(hidden, weight, None, targets)
    want, found = (torch.autograd.grad(x, [hidden, weight]) for x in (total, each.sum()))
    torch.testing.assert_close(each.sum(), total)
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_rows_of_written_texts_are_each_ones_sums_and_their_mean_is_over_tokens():
    hidden, weight, bias = (torch.randn(*s, requires_grad=True) for s in ((6, 5), (13, 5), (13,)))
    targets, record = torch.randint(13, (6,)), torch.tensor([0, 0, 0, 2, 2, 3])  # the second wrote nothing
    rows = written_rows(NextTokens(hidden, targets, record), (weight, bias), 4, 0.1)
    assert rows["targets"].tolist() == [3, 0, 2, 1]
    summed, each = token_loss(hidden, weight, bias, targets, 0.1)
    for name, by_token in (("nll", each.nll), ("foreseen", each.top)):
        expected = [by_token[record == r].sum().item() for r in range(4)]
        assert rows[name].tolist() == pytest.approx(expected, abs=1e-5)
    loss, parts = writing_loss(rows)
    assert loss.item() == pytest.approx(summed.item() / 6, abs=1e-5)
    assert parts["nll"].item() == pytest.approx(each.nll.mean().item(), abs=1e-5)
    assert parts["foreseen"].item() == pytest.approx(each.top.mean().item(), abs=1e-6)
    want = torch.autograd.grad(summed / 6, [hidden, weight, bias])
    for a, b in zip(torch.autograd.grad(loss, [hidden, weight, bias]), want, strict=True):
        torch.testing.assert_close(a, b)
