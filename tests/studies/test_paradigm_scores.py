"""Ranks of both sides of a matrix of scores, ties against the model."""

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.studies.paradigm_scores import items_of, ranks_of


def test_ranks_count_what_scores_as_high() -> None:
    scores = torch.tensor([[3.0, 1.0, 0.0], [5.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    assert ranks_of(scores) == {"names": [1, 3, 3], "pictures": [2, 1, 3]}
    assert ranks_of(torch.zeros(4, 4)) == {"names": [4] * 4, "pictures": [4] * 4}


class Split:
    name = "test"

    def __init__(self, captions: list[str]) -> None:
        self.said = captions

    def __len__(self) -> int:
        return len(self.said)

    def captions(self, place: int) -> tuple[str, ...]:
        return (self.said[place],)


def test_no_name_comes_twice() -> None:
    split = Split(["a", "b", "a", "c", "d", "d"])
    places, names = items_of(split, 4)
    assert sorted(names) == ["a", "b", "c", "d"]
    assert [split.said[p] for p in places] == names
    with pytest.raises(ConfigError, match="got 5, and there are 4"):
        items_of(split, 5)
