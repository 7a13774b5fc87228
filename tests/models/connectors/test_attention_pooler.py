import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.connectors.attention_pooler import AttentionPoolerConfig
from diptych.models.connectors.connector import Given


def test_the_order_of_the_tokens_does_not_matter() -> None:
    pooler = AttentionPoolerConfig(count=3, heads=2).build(Given(9, 4, 3), 8)
    x = torch.randn(2, 9, 4)
    torch.testing.assert_close(pooler(x), pooler(x[:, torch.randperm(9)]), atol=1e-5, rtol=1e-5)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="got 3 for 8"):
        AttentionPoolerConfig(heads=3).build(Given(9, 4, 3), 8)
