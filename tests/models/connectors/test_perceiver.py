import torch

from diptych.models.connectors.connector import Given
from diptych.models.connectors.perceiver import PerceiverConfig

SMALL = PerceiverConfig(latents=3, depth=2, heads=2, head_width=4)


def test_any_number_of_tokens_become_as_many_as_there_are_latents():
    same = SMALL.build(Given(9, 8, 3), 8)
    assert same.proj is None
    assert same.tokens == 3
    for count in (1, 9, 20):
        assert same(torch.randn(2, count, 8)).shape == (2, 3, 8)
    assert SMALL.build(Given(9, 8, 3), 10)(torch.randn(2, 9, 8)).shape == (2, 3, 10)


def test_the_order_of_its_tokens_does_not_matter():
    connector, x = SMALL.build(Given(9, 8, 3), 10), torch.randn(2, 9, 8)
    torch.testing.assert_close(connector(x[:, torch.randperm(9)]), connector(x))


def test_what_is_not_decayed():
    connector = SMALL.build(Given(9, 8, 3), 10)
    matrices = {n for n, p in connector.named_parameters() if p.ndim > 1}
    assert connector.decay_free() == matrices - {"proj.weight"}
    assert SMALL.replace(decayed=True).build(Given(9, 8, 3), 10).decay_free() == {"resampler.latents"}
