"""The order of a run: which record, caption and random key the n-th sample has. A pure function of (seed, n)."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from jaxtyping import UInt8
from torch import Tensor

from diptych.core.errors import DataError, ShardError
from diptych.core.seeds import fold, permute
from diptych.data.dataset import Split

CaptionChoice = Literal["draw", "first"]
MOST_TRIES = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """The n-th sample of a run, decoded: `key` feeds its augmentation. `image` is None where its vector is read from a
    table; `caption_number` says which of the record's captions was drawn."""

    n: int
    record: int
    key: int
    image: UInt8[Tensor, "3 h w"] | None
    image_id: int
    caption: str
    caption_number: int = 0


def place(n: int, size: int, seed: int, further: int = 0) -> int:
    """The record that the n-th sample of a run is: each epoch goes once through all `size` in an order of its own.

    `further` steps on in the same epoch's order, to where a record that cannot be read is replaced from.
    """
    epoch = n // size
    return permute((n + further) % size, size, seed, epoch)


class SampleReader:
    """Reads the samples of a run. A record that cannot be read is remembered in `bad` and replaced by the next one of
    the epoch's order, so that every batch keeps its size, whoever reads it."""

    def __init__(
        self, split: Split, seed: int, captions: CaptionChoice, image: Callable[[int], UInt8[Tensor, "3 h w"] | None]
    ) -> None:
        self.split = split
        self.seed = seed
        self.bad: dict[int, str] = {}
        self._captions = captions
        self._image = image

    def read(self, n: int) -> Sample:
        """The n-th sample. Raises DataError if a hundred records in a row cannot be read."""
        for further in range(min(MOST_TRIES, len(self.split))):
            record = place(n, len(self.split), self.seed, further)
            if record in self.bad:
                continue
            try:
                return self._read(n, record)
            except ShardError:  # not one record but a file of them: it must be mended, not passed over
                raise
            except DataError as error:
                self.bad[record] = str(error)
        raise DataError(
            f"{self.split.name} must hold readable records; got {MOST_TRIES} in a row that are not, the last: "
            f"{self.bad[record]} Copy or pack the dataset again."
        )

    def _read(self, n: int, record: int) -> Sample:
        key = fold(self.seed, "augment", n)
        texts, weights = self.split.texts(record)
        if not texts:
            raise DataError("a pair must have a caption; got none. Pack it with one, or leave it out.")
        number = choose(key, len(texts), weights) if self._captions == "draw" and len(texts) > 1 else 0
        return Sample(n, record, key, self._image(record), self.split.image_id(record), texts[number], number)


def choose(key: int, count: int, weights: tuple[float, ...] | None) -> int:
    """Which of `count` alternatives the sample with `key` draws; alternatives of no weight never, unless all are."""
    u = (fold(key, "caption") >> 10) * 2.0**-53
    if weights is None or not sum(weights) > 0:
        return int(u * count)
    steps = list(accumulate(max(w, 0.0) for w in weights))  # few: faster than numpy
    return min(bisect_right(steps, u * steps[-1]), count - 1)
