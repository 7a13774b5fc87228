import copy

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.nn import experts as module
from diptych.nn.block import BlockConfig, build_blocks, through_blocks
from diptych.nn.checkpointing import set_checkpointing
from diptych.nn.experts import STEP, Experts, balance_experts, expert_use, experts_of
from diptych.nn.mlp import MLP
from tests.models.towers import stir
from tests.nn import expert_ranks
from tests.reference.experts import experts as plain


def _layer(count=5, per_token=2, width=8, seed=0, activation="gelu"):
    torch.manual_seed(seed)
    layer = Experts(width, count, per_token, lambda: MLP(width, 16, activation))
    stir(layer)
    with torch.no_grad():
        layer.bias.copy_(0.2 * torch.randn(count))
    return layer


def _tokens(n=23, width=8, seed=1):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("count", "per_token"), [(5, 2), (4, 1), (3, 2), (6, 3)])
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_sorted_by_expert_equals_token_by_token(count, per_token, activation):
    """In float32 sums are taken in another order: 1e-5 of numbers of about 1."""
    layer = _layer(count, per_token, activation=activation)
    weight = torch.randn(23, 8)
    found = {}
    for name, function in (("fast", layer), ("plain", lambda x: plain(layer, x))):
        x = _tokens().requires_grad_()
        y = function(x)
        gradients = torch.autograd.grad((y * weight).sum(), [x, *layer.parameters()], allow_unused=True)
        # of an expert that no token goes to, the plain twin knows no gradient
        found[name] = y, [torch.zeros(()) if g is None else g for g in gradients]
    torch.testing.assert_close(found["fast"][0], found["plain"][0], atol=1e-5, rtol=1e-5)
    for fast, slow in zip(found["fast"][1], found["plain"][1], strict=True):
        torch.testing.assert_close(fast, slow.expand_as(fast), atol=1e-5, rtol=1e-4)
    assert found["fast"][1][1].abs().sum() > 0, "the router learns"


def test_any_shape_goes_through_and_no_token_depends_on_another():
    layer = _layer().eval()
    x = _tokens(24)
    torch.testing.assert_close(layer(x.view(4, 6, 8)), layer(x).view(4, 6, 8))
    torch.testing.assert_close(layer(x[5:6]), layer(x)[5:6])
    assert layer(x[:0]).shape == (0, 8)
    meta = copy.deepcopy(layer).to("meta")
    assert meta(torch.empty(3, 7, 8, device="meta")).shape == (3, 7, 8)


def test_an_expert_without_tokens_has_a_gradient_all_the_same():
    layer = _layer(4, 1)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
    layer(_tokens()).sum().backward()
    assert all(p.grad is not None for p in layer.parameters()), "DDP waits for each"
    assert layer.experts[1].fc_1.weight.grad.abs().sum() == 0


def test_the_choice_is_biased_and_the_gates_are_not():
    layer = _layer(3, 2)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([5.0, 0.0, 5.0]))
    x = _tokens()
    chosen, gates = layer.route(x)
    assert set(chosen.flatten().tolist()) == {0, 2}
    p = (x @ layer.router.weight.T).softmax(-1).gather(1, chosen)
    torch.testing.assert_close(gates, p / p.sum(1, keepdim=True))
    torch.testing.assert_close(gates.sum(1), torch.ones(23))
    one = _layer(3, 1)
    chosen, gates = one.route(x)
    torch.testing.assert_close(gates, (x @ one.router.weight.T).softmax(-1).gather(1, chosen))


def test_the_bias_moves_against_the_load_once_a_step():
    layer = _layer()
    before = layer.bias.clone()
    layer(_tokens())
    load = layer.noted.clone()
    assert int(load.sum()) == 46
    balance_experts(layer)
    moved = STEP * torch.sign(load.float().mean() - load)
    torch.testing.assert_close(layer.bias, before + moved)
    torch.testing.assert_close(layer.use, 0.9 / 5 + 0.1 * load / 46)
    after = copy.deepcopy(layer.state_dict())
    balance_experts(layer)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, after[name]), f"{name}: twice is once"


def test_pieces_equal_the_whole_and_only_training_with_a_gradient_counts():
    whole, pieces = _layer(), _layer()
    x = _tokens()
    whole(x)
    pieces(x[:9])
    pieces(x[9:])
    with torch.no_grad():  # the first pass of a cached batch
        pieces(x)
    pieces.eval()
    pieces(x)
    assert torch.equal(whole.noted, pieces.noted)
    pieces.forget_noted()
    before = pieces.bias.clone()
    balance_experts(pieces)
    assert torch.equal(pieces.bias, before)


def test_load_becomes_even():
    torch.manual_seed(0)
    layer = _layer(8, 2)
    with torch.no_grad():
        layer.bias.zero_()
        layer.router.weight.mul_(0.2)
        layer.router.weight[0] += 1.0 * _tokens().mean(0).sign()
    x = _tokens(400)
    uneven = []
    for step in range(300):
        layer(x)
        if step in (0, 299):
            uneven.append(float(layer.noted.float().std() / layer.noted.float().mean()))
        balance_experts(layer)
    assert uneven[1] < 0.5 * uneven[0]
    assert expert_use([layer])["experts_busiest"] < 1.5


def test_use_for_the_log_is_that_of_the_worst_layer():
    assert expert_use([]) == {}
    even, one = _layer(4), _layer(4)
    one.use.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert expert_use([even]) == pytest.approx({"experts_busiest": 1, "experts_idlest": 1, "experts_entropy": 1})
    found = expert_use([even, one])
    assert found == pytest.approx({"experts_busiest": 4, "experts_idlest": 0, "experts_entropy": 0}, abs=1e-6)


def test_ranks_add_up(monkeypatch):
    """Of two ranks each has noted a half: the sum over ranks is the whole's."""
    whole, half = _layer(), _layer()
    x = _tokens()
    whole(x)
    half(x[:10])
    other = _layer()
    other(x[10:])
    monkeypatch.setattr(module, "all_sum", lambda load: load + other.noted)
    balance_experts(half)
    monkeypatch.setattr(module, "all_sum", lambda load: load)
    balance_experts(whole)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, half.state_dict()[name]), name


def _blocks(**changes):
    torch.manual_seed(0)
    blocks = build_blocks(BlockConfig(width=16, depth=2, heads=2, experts=4, **changes))
    stir(blocks)
    return blocks


@pytest.mark.parametrize("position", ["pre", "post", "sub", "swin"])
def test_blocks_with_experts_and_checkpointed_ones_count_in_proportion(position):
    x = torch.randn(3, 5, 16)
    found = []
    for checkpointed in (False, True):
        blocks = _blocks(norm_position=position)
        set_checkpointing(blocks, checkpointed)
        inputs = x.clone().requires_grad_()
        through_blocks(blocks, inputs).square().sum().backward()
        noted = [m.noted for m in experts_of(blocks)]
        balance_experts(blocks)
        found.append((inputs.grad, noted, [m.bias for m in experts_of(blocks)]))
    (grad, noted, bias), (grad_2, noted_2, bias_2) = found
    torch.testing.assert_close(grad, grad_2)
    assert len(noted) == 2
    for a, b in zip(noted, noted_2, strict=True):
        assert torch.equal(2 * a, b), "all tokens twice, so that no share changes"
    assert all(torch.equal(a, b) for a, b in zip(bias, bias_2, strict=True))


def test_some_places_and_bfloat16():
    blocks = _blocks().eval()
    x = torch.randn(3, 5, 16)
    places = torch.tensor([0, 7, 14])
    whole = through_blocks(blocks, x).flatten(0, 1)[places]
    torch.testing.assert_close(through_blocks(blocks, x, only=places), whole)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = through_blocks(blocks, x)
    layer = experts_of(blocks)[0]
    with torch.autocast("cpu", torch.bfloat16):
        _, gates = layer.route(torch.randn(4, 16, dtype=torch.bfloat16))
    assert gates.dtype == torch.float32
    assert (coarse.float().flatten(0, 1)[places] - whole).abs().mean() < 0.1 * whole.abs().mean()


def test_settings_that_cannot_be_are_refused():
    assert not experts_of(build_blocks(BlockConfig(width=16, depth=1, heads=2)))
    for experts, per_token in ((1, 1), (2, 2), (1, 2)):
        with pytest.raises(ConfigError, match="experts must be more than experts_per_token, or 0 for one MLP; got"):
            BlockConfig(experts=experts, experts_per_token=per_token)


@pytest.mark.slow
@pytest.mark.dist
def test_two_ranks_are_one(tmp_path):
    """Router, biases and use too: the load is that of all ranks. Sums in another order: 1e-5 of numbers of about 1."""
    both, alone = expert_ranks.compute_together(tmp_path), expert_ranks.steps()
    for kind, values in alone.items():
        for n, value in values.items():
            torch.testing.assert_close(both[0][kind][n], value, atol=1e-5, rtol=1e-4)
            assert torch.equal(both[0][kind][n], both[1][kind][n]), n
    assert any(n.endswith("bias") and v.abs().sum() > 0 for n, v in alone["state"].items() if "experts" not in n)
