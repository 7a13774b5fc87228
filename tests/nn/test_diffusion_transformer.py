import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.nn.checkpointing import set_checkpointing
from diptych.nn.denoiser import Condition
from diptych.nn.diffusion_transformer import DiffusionTransformerConfig, grid_waves
from tests.models.towers import stir

SMALL = DiffusionTransformerConfig(width=16, depth=3, heads=2, patch_size=2)


def told(seed: int = 1) -> Condition:
    g = torch.Generator().manual_seed(seed)
    return Condition(torch.randn(2, 5, 6, generator=g), torch.tensor([5, 2]), torch.randn(2, 7, generator=g))


X, TIMES = torch.randn(2, 3, 8, 8), torch.tensor([30.0, 700.0])


@pytest.mark.parametrize("modulation", ["block", "single"])
def test_it_begins_with_no_answer_and_reads_all_that_it_is_told(modulation):
    model = SMALL.replace(modulation=modulation).build(3, 8, 6, 7)
    assert model(X, TIMES, told()).abs().max() == 0
    stir(model)
    plain = model(X, TIMES, told())
    assert plain.shape == X.shape
    c = told()
    for other in (c._replace(vector=c.vector + 1), c._replace(tokens=c.tokens + 1)):
        assert not torch.allclose(model(X, TIMES, other), plain, atol=1e-4)
    assert not torch.allclose(model(X, TIMES + 50, c), plain, atol=1e-4)
    hidden = c.tokens.clone()
    hidden[1, 2:] = 100.0  # padding
    torch.testing.assert_close(model(X, TIMES, c._replace(tokens=hidden)), plain)
    (plain * torch.randn_like(plain)).sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_tokens_are_those_of_the_middle():
    model = SMALL.build(3, 8, 6, 7)
    stir(model)
    tokens = model.tokens(X, TIMES, told())
    assert tokens.shape == (2, 16, 16)
    with torch.no_grad():
        for p in model.blocks[2].parameters():
            p.zero_()
    assert torch.equal(model.tokens(X, TIMES, told()), tokens)


def test_blocks_computed_again_give_the_same_gradient():
    found = []
    for on in (False, True):
        torch.manual_seed(3)
        model = SMALL.build(3, 8, 6, 7)
        stir(model)
        assert set_checkpointing(model, on) == 3
        model(X, TIMES, told()).square().sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters()})
    for name, g in found[0].items():
        torch.testing.assert_close(found[1][name], g, msg=name)


def test_a_larger_grid_lies_closer():
    small, large = grid_waves(2, 2, 8, 2), grid_waves(4, 4, 8, 2)
    torch.testing.assert_close(large.view(4, 4, 8)[::2, ::2].flatten(0, 1), small)
    model = SMALL.build(3, 8, 0, 0)
    stir(model)
    assert model(torch.randn(2, 3, 16, 16), TIMES, Condition()).shape == (2, 3, 16, 16)


def test_what_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="width must be a multiple of heads and of 4"):
        SMALL.replace(width=18)
    with pytest.raises(ConfigError, match="must be a multiple of patch_size"):
        SMALL.build(3, 9, 0, 0)
