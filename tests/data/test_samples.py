"""The order of a run: complete, keyed, and with captions drawn by weight."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.core.errors import DataError, ShardError
from diptych.core.seeds import fold
from diptych.data.samples import SampleReader, Shuffled, caption_draws, choose, place, sample_keys


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


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 300), seed=st.integers(0, 2**31), low=st.integers(0, 700), count=st.integers(0, 400))
def test_many_places_and_keys_equal_one_by_one(size: int, seed: int, low: int, count: int) -> None:
    numbers = np.arange(low, low + count)
    for further in (0, 3):
        expected = [place(n, size, seed, further) for n in range(low, low + count)]
        assert Shuffled(size, seed).places(numbers, numbers, further).tolist() == expected
    assert sample_keys(low, low + 3, seed) == [fold(seed, "augment", n) for n in range(low, low + 3)]


def test_draws_are_those_that_choose_makes() -> None:
    keys = sample_keys(0, 50, 1)
    assert [int(u * 7) for u in caption_draws(keys)] == [choose(k, 7, None) for k in keys]


def test_a_bad_record_is_replaced_by_the_next_of_the_order() -> None:
    reader, bad, read = SampleReader("train", 10, 0), place(0, 10, 0), []

    def attempt(row: int, record: int) -> None:
        if record == bad:
            raise DataError("broken")
        read.append((row, record))

    records = reader.read(0, 3, attempt).tolist()
    assert records == [place(1, 10, 0), place(1, 10, 0), place(2, 10, 0)]
    assert read == list(enumerate(records))
    assert reader.bad == {bad: "broken"}
    read.clear()
    assert reader.read(0, 3, attempt).tolist() == records, "and it is not tried again"


def test_when_nothing_can_be_read_it_says_so() -> None:
    def broken(row: int, record: int) -> None:
        raise DataError(f"broken {record}")

    def damaged(row: int, record: int) -> None:
        raise ShardError("cut off")

    with pytest.raises(DataError, match="must hold readable records"):
        SampleReader("train", 3, 0).read(0, 1, broken)
    with pytest.raises(ShardError, match="cut off"):
        SampleReader("train", 3, 0).read(0, 1, damaged)
