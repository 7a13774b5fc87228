import pytest
import torch
from torch import Tensor

from diptych.core.errors import ConfigError
from diptych.nn import mask
from diptych.nn.attention import Attention, attend, attend_by_matmul
from diptych.nn.mask import Layout, MaskPlan
from tests.reference import attention as reference


def draws(queries: int = 5, keys: int = 5) -> list[Tensor]:
    return [torch.randn(2, 3, n, 4, dtype=torch.float64, requires_grad=True) for n in (queries, keys, keys)]


def check(q: Tensor, k: Tensor, v: Tensor, plan: MaskPlan | None, allowed: Tensor | None) -> None:
    fast, slow = attend(q, k, v, plan), reference.attend(q, k, v, allowed)
    torch.testing.assert_close(fast, slow, atol=1e-12, rtol=1e-9)
    toward = torch.randn_like(slow)
    ours = torch.autograd.grad((fast * toward).sum(), (q, k, v))
    theirs = torch.autograd.grad((slow * toward).sum(), (q, k, v))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)


def test_without_mask_it_equals_loops_in_value_and_gradient() -> None:
    check(*draws(), None, None)
    check(*draws(queries=2, keys=6), None, None)


def test_causal_path_equals_loops() -> None:
    layout = Layout(5)
    rule = mask.causal()
    check(*draws(), rule.plan(layout), rule.dense(layout).expand(2, -1, -1))


def test_matrix_path_equals_loops_and_blind_rows_are_zero() -> None:
    segment = torch.tensor([[0, 0, 1, 1, -1], [0, -1, -1, -1, -1]])
    layout = Layout(5, segment=segment)
    rule = mask.block_diagonal() & mask.causal()
    q, k, v = draws()
    check(q, k, v, rule.plan(layout), rule.dense(layout))
    out = attend(q, k, v, rule.plan(layout))
    assert out[1, :, 1:].abs().max() == 0
    out.sum().backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()
    assert q.grad[1, :, 1:].abs().max() == 0


def test_padding_broadcasts_over_queries() -> None:
    layout = Layout.of_lengths(torch.tensor([2, 5]), 5)
    plan = mask.padding().plan(layout)
    assert plan is not None
    assert plan.allowed is not None
    assert plan.allowed.shape == (2, 1, 1, 5)
    check(*draws(), plan, mask.padding().dense(layout))


def test_module_equals_loops() -> None:
    module = Attention(12, 3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    ours = module(x, mask.causal().plan(Layout(5)))
    theirs = reference.self_attention(x, module.state_dict(), "", 3, mask.causal().dense(Layout(5)).expand(2, -1, -1))
    torch.testing.assert_close(ours, theirs)


def test_context_is_what_is_attended_to() -> None:
    module = Attention(12, 3, context_width=7)
    x, context = torch.randn(2, 4, 12), torch.randn(2, 6, 7)
    assert module(x, context=context).shape == (2, 4, 12)
    blind = mask.keys(mask.IMAGE).plan(Layout(4), Layout(6))
    torch.testing.assert_close(module(x, blind, context), module.out_proj.bias.expand(2, 4, 12))


def test_qk_norm_bounds_the_logits() -> None:
    module = Attention(8, 2, qk_norm="layer")
    big = Attention(8, 2, qk_norm="layer")
    big.load_state_dict(module.state_dict())
    with torch.no_grad():
        big.q_proj.weight.mul_(1e4)
        big.q_proj.bias.mul_(1e4)
    x = torch.randn(1, 3, 8)
    torch.testing.assert_close(module(x), big(x), atol=1e-3, rtol=1e-3)  # eps is felt by the small one only


def test_no_bias_and_inner_norm() -> None:
    names = dict(Attention(8, 2, bias=False, inner_norm="rms").named_parameters())
    assert sorted(names) == ["inner_norm.weight", *(f"{n}_proj.weight" for n in ("k", "out", "q", "v"))]


def test_heads_must_divide_width() -> None:
    with pytest.raises(ConfigError, match="width must be a multiple of heads; got width 10, heads 4"):
        Attention(10, 4)


@pytest.mark.parametrize("rule", [mask.bidirectional(), mask.causal(), mask.padding(), mask.padding() & mask.causal()])
def test_matmul_path_equals_loops_and_serves_bf16_training(rule: mask.Mask, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.of_lengths(torch.tensor([2, 5]), 5)
    allowed = rule.dense(layout).expand(2, -1, -1)
    q, k, v = draws()
    slow = reference.attend(q, k, v, allowed)
    fast = attend_by_matmul(q, k, v, allowed[:, None])
    torch.testing.assert_close(fast, slow, atol=1e-12, rtol=1e-9)
    toward = torch.randn_like(slow)
    theirs = torch.autograd.grad((slow * toward).sum(), (q, k, v))
    torch.testing.assert_close(torch.autograd.grad((fast * toward).sum(), (q, k, v)), theirs, atol=1e-12, rtol=1e-9)

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("the fused kernel's backward is the slow one here")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", never)
    half = [t.detach().bfloat16().requires_grad_() for t in (q, k, v)]
    out = attend(half[0], half[1], half[2], rule.plan(layout))
    grads = torch.autograd.grad((out * toward.bfloat16()).sum(), half)
    torch.testing.assert_close(out.double(), slow, atol=3e-2, rtol=3e-2)
    for a, b in zip(grads, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("bias", [True, False])
def test_stacked_projections_equal_three_in_value_and_gradient(bias: bool) -> None:
    module = Attention(12, 3, bias=bias).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    ours = torch.cat([p(x) for p in (module.q_proj, module.k_proj, module.v_proj)], -1)
    stacked = module._stacked(x)
    torch.testing.assert_close(stacked, ours, atol=1e-12, rtol=1e-12)
    toward, at = torch.randn_like(ours), [x, *(p.weight for p in (module.q_proj, module.k_proj, module.v_proj))]
    for a, b in zip(
        torch.autograd.grad((stacked * toward).sum(), at), torch.autograd.grad((ours * toward).sum(), at), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_projections_that_someone_has_replaced_or_hooked_are_not_stacked() -> None:
    module = Attention(12, 3)
    assert module._plain()
    handle = module.k_proj.register_forward_hook(lambda *_: None)
    assert not module._plain()
    handle.remove()
    assert module._plain()
    module.q_proj = torch.nn.Sequential(module.q_proj)  # as LoRA's wrappers do
    assert not module._plain()


def test_only_some_outputs_are_those_of_all() -> None:
    module = Attention(12, 3, inner_norm="layer")
    x, only = torch.randn(2, 5, 12), torch.tensor([7, 0, 4, 4])
    plan = mask.causal().plan(Layout(5))
    torch.testing.assert_close(module(x, plan, only=only), module(x, plan).flatten(0, 1)[only])
