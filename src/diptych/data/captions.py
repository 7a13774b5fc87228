"""What the samples of a batch say: one of each record's captions, as token ids."""

from abc import ABC, abstractmethod
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor

from diptych.core.errors import DataError
from diptych.data.dataset import Split
from diptych.data.samples import CaptionChoice, choose
from diptych.data.tokenize import Encoded, Tokenizer

_Alternatives = tuple[tuple[str, ...], tuple[float, ...] | None]
_MOST_READ = 1 << 16


class Texts(NamedTuple):
    """One caption of each sample: padded ids, how many of them are real, a hash of each text as the model sees it, and
    how many of them were cut."""

    tokens: Int64[Tensor, "b t"]
    lengths: Int64[Tensor, " b"]
    ids: Int64[Tensor, " b"]
    truncated: int


class Captions(ABC):
    """Where captions come from."""

    @abstractmethod
    def check(self, record: int) -> None:
        """Raise DataError if a record has no caption that can be read."""

    @abstractmethod
    def choose(self, records: Int64[ndarray, " b"], keys: list[int]) -> Int64[ndarray, " b"]:
        """Which of its captions each record says to the sample with that key."""

    @abstractmethod
    def texts(self, records: Int64[ndarray, " b"], which: Int64[ndarray, " b"]) -> Texts:
        """Those captions, as token ids."""


class LiveCaptions(Captions):
    """Reads and tokenises the captions of each batch anew: the plain twin of `CachedCaptions`."""

    def __init__(self, split: Split, tokenizer: Tokenizer, how: CaptionChoice) -> None:
        self._split, self._tokenizer, self._how = split, tokenizer, how
        self._read: dict[int, _Alternatives] = {}  # of the batch that is being made

    def check(self, record: int) -> None:
        """Raise DataError if a record has no caption that can be read."""
        if not self._of(record)[0]:
            raise no_caption()

    def choose(self, records: Int64[ndarray, " b"], keys: list[int]) -> Int64[ndarray, " b"]:
        """Which of its captions each record says to the sample with that key."""
        which = np.zeros(len(records), dtype=np.int64)
        if self._how == "draw":
            for row, (record, key) in enumerate(zip(records.tolist(), keys, strict=True)):
                captions, weights = self._of(record)
                which[row] = choose(key, len(captions), weights) if len(captions) > 1 else 0
        return which

    def texts(self, records: Int64[ndarray, " b"], which: Int64[ndarray, " b"]) -> Texts:
        """Those captions, as token ids."""
        said = [self._of(r)[0][i] for r, i in zip(records.tolist(), which.tolist(), strict=True)]
        self._read.clear()
        rows = self._tokenizer.encode_all(said)
        ids = torch.tensor([text_id(r) for r in rows], dtype=torch.int64)
        return Texts(*self._tokenizer.pad(rows), ids, sum(r.truncated for r in rows))

    def _of(self, record: int) -> "_Alternatives":
        if record not in self._read:
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            self._read[record] = self._split.texts(record)
        return self._read[record]


def no_caption() -> DataError:
    """What is wrong with a record that says nothing."""
    return DataError("a pair must have a caption; got none. Pack it with one, or leave it out.")


def text_id(row: Encoded) -> int:
    """A signed 64-bit hash of a caption as the model sees it: captions that differ only where they are cut, or in case
    that the tokenizer folds, are the same text to the model and so to its loss."""
    raw = np.array(row.ids, dtype="<u4").tobytes()
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little", signed=True)
