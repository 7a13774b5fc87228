import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.connectors.average_pool import AveragePoolConfig
from diptych.models.connectors.connector import Given

GIVEN = Given(tokens=16, width=3, side=4)


def test_each_square_is_its_mean() -> None:
    pool = AveragePoolConfig(map="linear").build(GIVEN, 3)
    with torch.no_grad():
        pool.map.proj.weight.copy_(torch.eye(3))
        x = torch.arange(16.0)[None, :, None].expand(1, 16, 3)
        torch.testing.assert_close(pool(x)[0, :, 0], torch.tensor([2.5, 4.5, 10.5, 12.5]))


def test_the_map_may_be_an_mlp() -> None:
    assert {n for n, _ in AveragePoolConfig().build(GIVEN, 8).map.named_children()} == {"fc_1", "fc_2"}


def test_a_grid_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="must divide the side"):
        AveragePoolConfig(factor=3).build(GIVEN, 8)
