"""The order of a run: complete, keyed, and with captions drawn by weight."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.core.errors import DataError, ShardError
from diptych.core.seeds import fold
from diptych.data.samples import SampleReader, choose, place
from tests.data.tiny_split import opened


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 300), seed=st.integers(0, 2**31), epoch=st.integers(0, 5))
def test_every_record_comes_once_an_epoch(size: int, seed: int, epoch: int) -> None:
    assert sorted(place(epoch * size + i, size, seed) for i in range(size)) == list(range(size))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(place(n, 50, seed) for n in range(e * 50, e * 50 + 50)) for seed in (0, 1) for e in (0, 1)}
    assert len(orders) == 4


@pytest.mark.parametrize("weights", [None, (1.0, 0.0, 3.0), (0.0, 0.0, 0.0)])
def test_alternatives_are_drawn_by_their_weights(weights: tuple[float, ...] | None) -> None:
    drawn = Counter(choose(fold(0, "augment", n), 3, weights) for n in range(3000))
    total = sum(weights or ()) or 3
    for i in range(3):
        expected = 3000 * (weights[i] if weights and sum(weights) else 1) / total
        assert abs(drawn[i] - expected) <= 3.5 * expected**0.5


def test_a_bad_record_is_replaced_by_the_next_of_the_order(tmp_path: Path) -> None:
    split = opened(tmp_path, 10)
    bad = place(0, 10, 0)

    def image(i: int) -> torch.Tensor:
        if i == bad:
            raise DataError("broken")
        return torch.zeros(3, 2, 2, dtype=torch.uint8)

    reader = SampleReader(split, 0, "draw", image)
    sample = reader.read(0)
    assert sample.record == place(1, 10, 0)
    assert sample.n == 0
    assert sample.key == fold(0, "augment", 0)
    assert reader.bad == {bad: "broken"}
    assert sample.caption == f"picture number {sample.record}", "the other has no weight"


def test_when_nothing_can_be_read_it_says_so(tmp_path: Path) -> None:
    split = opened(tmp_path, 3)

    def broken(i: int) -> torch.Tensor:
        raise DataError(f"broken {i}")

    def damaged(i: int) -> torch.Tensor:
        raise ShardError("cut off")

    with pytest.raises(DataError, match="must hold readable records"):
        SampleReader(split, 0, "first", broken).read(0)
    with pytest.raises(ShardError, match="cut off"):
        SampleReader(split, 0, "first", damaged).read(0)
