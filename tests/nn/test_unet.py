import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.nn.checkpointing import set_checkpointing
from diptych.nn.denoiser import Condition
from diptych.nn.unet import UNetConfig
from tests.models.towers import stir
from tests.nn.test_diffusion_transformer import TIMES, X, told

SMALL = UNetConfig(widths=(8, 16), attends=(False, True), heads=2, groups=4)


def test_it_begins_with_no_answer_and_reads_all_that_it_is_told():
    model = SMALL.build(3, 8, 6, 7)
    assert model(X, TIMES, told()).abs().max() == 0
    stir(model)
    plain, c = model(X, TIMES, told()), told()
    assert plain.shape == X.shape
    for other in (c._replace(vector=c.vector + 1), c._replace(tokens=c.tokens + 1)):
        assert not torch.allclose(model(X, TIMES, other), plain, atol=1e-4)
    hidden = c.tokens.clone()
    hidden[1, 2:] = 100.0  # padding
    torch.testing.assert_close(model(X, TIMES, c._replace(tokens=hidden)), plain)
    (plain * torch.randn_like(plain)).sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert model.tokens(X, TIMES, c).shape == (2, 16, 16)


def test_maps_around_attention_are_the_same_function_in_either_shape():
    torch.manual_seed(1)
    linear = SMALL.build(3, 8, 6, 7)
    stir(linear)
    convolved = SMALL.replace(linear_projection=False).build(3, 8, 6, 7)
    shapes = convolved.state_dict()
    convolved.load_state_dict({n: t.view(shapes[n].shape) for n, t in linear.state_dict().items()})
    torch.testing.assert_close(convolved(X, TIMES, told()), linear(X, TIMES, told()))


def test_blocks_computed_again_give_the_same_gradient():
    found = []
    for on in (False, True):
        torch.manual_seed(3)
        model = SMALL.build(3, 8, 6, 7)
        stir(model)
        set_checkpointing(model, on)
        model(X, TIMES, told()).square().sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters()})
    for name, g in found[0].items():
        torch.testing.assert_close(found[1][name], g, msg=name)


def test_it_needs_no_text():
    model = SMALL.build(3, 8, 0, 0)
    stir(model)
    assert model(X, TIMES, Condition()).shape == X.shape


def test_what_does_not_divide_is_refused():
    for values, words in (
        ({"attends": (True,)}, "yes or no for each of the widths"),
        ({"groups": 3}, "must be multiples of groups"),
    ):
        with pytest.raises(ConfigError, match=words):
            SMALL.replace(**values)
    with pytest.raises(ConfigError, match="must be a multiple of 2"):
        SMALL.build(3, 9, 0, 0)
