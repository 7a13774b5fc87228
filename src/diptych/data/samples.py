"""The order of a run: which record, caption and random key the n-th sample has. A pure function of (seed, n)."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from diptych.core.errors import DataError, ShardError
from diptych.core.seeds import fold, folds, permute, permutes

CaptionChoice = Literal["draw", "first"]
MOST_TRIES = 100


def place(n: int, size: int, seed: int, further: int = 0) -> int:
    """The record that the n-th sample of a run is: each epoch goes once through all `size` in an order of its own.

    `further` steps on in the same epoch's order, to where a record that cannot be read is replaced from.
    """
    epoch = n // size
    return permute((n + further) % size, size, seed, epoch)


def sample_keys(low: int, high: int, seed: int) -> list[int]:
    """The key that feeds the random draws of each sample from `low` up to `high`: fold(seed, "augment", n)."""
    return folds((seed, "augment"), range(low, high))


class Order(ABC):
    """Which records of `size` the samples of a run are: a pure function of the sample's number."""

    size: int

    @abstractmethod
    def places(
        self, turns: Int64[ndarray, " b"], samples: Int64[ndarray, " b"], further: int = 0
    ) -> Int64[ndarray, " b"]:
        """The record of each sample. `turns`: how many samples these records had before it; `samples`: how many the
        run had, which is the same unless records are a part of a mixture. `further` steps on to another record, for
        one that cannot be read."""


class Shuffled(Order):
    """Epochs: each goes once through all records in an order of its own (`place`)."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def places(
        self, turns: Int64[ndarray, " b"], samples: Int64[ndarray, " b"], further: int = 0
    ) -> Int64[ndarray, " b"]:
        """The record of each sample."""
        found = np.empty(len(turns), dtype=np.int64)
        epochs = turns // self.size
        for epoch in np.unique(epochs).tolist():  # each has keys of its own
            here = epochs == epoch
            found[here] = permutes((turns[here] + further) % self.size, self.size, self.seed, epoch)
        return found


class SampleReader:
    """Finds the records of a run's samples. One that cannot be read is remembered in `bad` and replaced by the next of
    the epoch's order, so that every batch keeps its size, whoever reads it."""

    def __init__(self, name: str, size: int, seed: int, order: Order | None = None) -> None:
        self.name, self.size, self.seed = name, size, seed
        self.order = order or Shuffled(size, seed)
        self.bad: dict[int, str] = {}

    def read(self, low: int, high: int, attempt: Callable[[int, int], None]) -> Int64[ndarray, " b"]:
        """The records of samples `low` to `high`, each of which `attempt(row, record)` has read without a DataError.

        Raises ShardError as it comes, DataError if a hundred records in a row cannot be read.
        """
        numbers = np.arange(low, high, dtype=np.int64)
        records = self.order.places(numbers, numbers)
        for row, record in enumerate(records.tolist()):
            if record in self.bad or not self._reads(row, record, attempt):
                records[row] = self._replaced(low + row, row, attempt)
        return records

    def _replaced(self, n: int, row: int, attempt: Callable[[int, int], None]) -> int:
        number = np.array([n], dtype=np.int64)
        for further in range(1, min(MOST_TRIES, self.size)):
            record = int(self.order.places(number, number, further)[0])
            if record not in self.bad and self._reads(row, record, attempt):
                return record
        raise DataError(
            f"{self.name} must hold readable records; got {MOST_TRIES} in a row that are not, the last: "
            f"{list(self.bad.values())[-1]} Copy or pack the dataset again."
        )

    def _reads(self, row: int, record: int, attempt: Callable[[int, int], None]) -> bool:
        try:
            attempt(row, record)
        except ShardError:  # not one record but a file of them: it must be mended, not passed over
            raise
        except DataError as error:
            self.bad[record] = str(error)
            return False
        return True


def choose(key: int, count: int, weights: tuple[float, ...] | None) -> int:
    """Which of `count` alternatives the sample with `key` draws; alternatives of no weight never, unless all are."""
    u = (fold(key, "caption") >> 10) * 2.0**-53
    if weights is None or not sum(weights) > 0:
        return int(u * count)
    steps = list(accumulate(max(w, 0.0) for w in weights))  # few: faster than numpy
    return min(bisect_right(steps, u * steps[-1]), count - 1)


def caption_draws(keys: list[int]) -> Float64[ndarray, " b"]:
    """The uniform number by which `choose` chooses, for each key."""
    return np.array([k >> 10 for k in folds((), keys, ("caption",))], dtype=np.float64) * 2.0**-53
