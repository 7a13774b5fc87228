import torch

from diptych.models.connectors.connector import Given
from diptych.models.connectors.prefix import PrefixConfig


def test_one_vector_becomes_some_tokens() -> None:
    prefix = PrefixConfig(count=3).build(Given(1, 4, 0), 5)
    x = torch.randn(2, 1, 4)
    flat = x[:, 0] @ prefix.proj.weight.T + prefix.proj.bias
    torch.testing.assert_close(prefix(x), flat.view(2, 3, 5))


def test_of_many_tokens_the_mean_is_taken() -> None:
    prefix = PrefixConfig().build(Given(6, 4, 0), 5)
    x = torch.randn(2, 6, 4)
    torch.testing.assert_close(prefix(x), prefix(x.mean(1, keepdim=True)))
