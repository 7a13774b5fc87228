import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.connectors.connector import Given
from diptych.models.connectors.pixel_shuffle import PixelShuffleConfig

GIVEN = Given(tokens=16, width=3, side=4)


def merged(neighbours: str) -> torch.Tensor:
    """Which tokens each one that comes out is made of, when the map changes nothing."""
    shuffle = PixelShuffleConfig(neighbours=neighbours).build(GIVEN, 12)
    with torch.no_grad():
        shuffle.proj.weight.copy_(torch.eye(12))
        x = torch.arange(16.0)[None, :, None].expand(1, 16, 3)
        return shuffle(x)[0, :, ::3]


def test_a_square_of_neighbours_becomes_one_token() -> None:
    assert merged("grid").tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_four_that_follow_each_other_become_one_token() -> None:
    assert merged("row").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]


def test_no_bias_where_none_is_wanted() -> None:
    assert PixelShuffleConfig(bias=False).build(GIVEN, 8).proj.bias is None


@pytest.mark.parametrize(
    "values,given,message",
    [
        ({}, Given(17, 3, 0), "must be a square grid.*reading.cls=false"),
        ({"factor": 3}, GIVEN, "connector.factor must divide the side of the grid of tokens; got 3 for a side of 4"),
        ({"neighbours": "row"}, Given(17, 3, 0), "squared must divide the tokens of an image; got 2 for 17"),
    ],
)
def test_what_cannot_be_merged_is_said(values: dict, given: Given, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PixelShuffleConfig(**values).build(given, 8)
