"""What the samples of a batch say: one of each record's alternatives, as token ids."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy import ndarray
from torch import Tensor

from diptych.core.errors import DataError
from diptych.data.dataset import Split
from diptych.data.passage import BEFORE_ALL, Places, Row, compose, compose_alternatives
from diptych.data.record_files import Pieces
from diptych.data.samples import CaptionChoice, choose
from diptych.data.tokenize import Encoded, Tokenizer

_MOST_READ = 1 << 16


class Texts(NamedTuple):
    """One alternative of each sample: padded ids, how many of them are real, a hash of each text as the model sees it,
    and how many of them were cut.

    loss_mask   which tokens bear loss; None: all real ones but the first of each row
    places      before which token of its row each of a record's images stands; None: one image, before the first
    """

    tokens: Int64[Tensor, "b t"]
    lengths: Int64[Tensor, " b"]
    ids: Int64[Tensor, " b"]
    truncated: int
    loss_mask: Bool[Tensor, "b t"] | None = None
    places: list[Places] | None = None


class Captions(ABC):
    """Where texts come from."""

    alone = False
    """Whether a record with an image may say nothing: its text is then empty, of no tokens at all."""

    @abstractmethod
    def check(self, record: int) -> int:
        """How many images a record holds, by what it says of itself. Raises DataError if it has no text that can be
        read."""

    @abstractmethod
    def choose(self, records: Int64[ndarray, " b"], keys: list[int]) -> Int64[ndarray, " b"]:
        """Which of its alternatives each record says to the sample with that key."""

    @abstractmethod
    def texts(self, records: Int64[ndarray, " b"], which: Int64[ndarray, " b"]) -> Texts:
        """Those alternatives, as token ids."""


class LiveCaptions(Captions):
    """Reads and tokenises the texts of each batch anew: the plain twin of `CachedCaptions`."""

    def __init__(self, split: Split, tokenizer: Tokenizer, how: CaptionChoice) -> None:
        self._split, self._tokenizer, self._how = split, tokenizer, how
        self._read: dict[int, Pieces] = {}  # of the batch that is being made

    def check(self, record: int) -> int:
        """How many images a record holds. Raises DataError if it has no text that can be read."""
        pieces = self._of(record)
        if not pieces.texts and not (self.alone and pieces.images):
            raise no_caption()
        return len(pieces.images)

    def choose(self, records: Int64[ndarray, " b"], keys: list[int]) -> Int64[ndarray, " b"]:
        """Which of its alternatives each record says to the sample with that key."""
        which = np.zeros(len(records), dtype=np.int64)
        if self._how == "draw":
            for row, (record, key) in enumerate(zip(records.tolist(), keys, strict=True)):
                pieces = self._of(record)
                if (count := pieces.alternatives) > 1:
                    which[row] = choose(key, count, pieces.weights)
        return which

    def texts(self, records: Int64[ndarray, " b"], which: Int64[ndarray, " b"]) -> Texts:
        """Those alternatives, as token ids."""
        said = [(self._of(r), i) for r, i in zip(records.tolist(), which.tolist(), strict=True)]
        self._read.clear()
        rows = compose(said, self._tokenizer)
        rows = [r if pieces.texts else Row([], False) for r, (pieces, _) in zip(rows, said, strict=True)]
        tokens, lengths = self._tokenizer.pad(rows)
        return Texts(
            tokens,
            lengths,
            torch.tensor([text_id(r) for r in rows], dtype=torch.int64),
            sum(r.truncated for r in rows),
            _loss_mask(rows, tokens.shape[1]),
            None if all(r.places == BEFORE_ALL for r in rows) else [r.places for r in rows],
        )

    def _of(self, record: int) -> Pieces:
        if record not in self._read:
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            self._read[record] = self._split.pieces(record)
        return self._read[record]


def _loss_mask(rows: Sequence[Row], width: int) -> Bool[Tensor, "b t"] | None:
    if all(r.loss is None for r in rows):
        return None
    mask = np.zeros((len(rows), width), dtype=bool)
    for bears, row in zip(mask, rows, strict=True):
        bears[1 : len(row.ids)] = True if row.loss is None else row.loss[1:]
    return torch.from_numpy(mask)


def longest_rows(split: Split, tokenizer: Tokenizer, records: Sequence[int]) -> Int64[Tensor, " n"]:
    """The length in tokens of the longest row that each of some records can become; 0 where one says nothing."""
    tokenizer = tokenizer.replaced()  # with counters of its own
    rows = [compose_alternatives(split.pieces(record), tokenizer) for record in records]
    return torch.tensor([max((len(r.ids) for r in found), default=0) for found in rows], dtype=torch.int64)


def no_caption() -> DataError:
    """What is wrong with a record that says nothing."""
    return DataError("a pair must have a caption; got none. Pack it with one, or leave it out.")


def text_id(row: Encoded) -> int:
    """A signed 64-bit hash of a text as the model sees it, its ids and what of them bears loss: captions that differ
    only where they are cut, or in case that the tokenizer folds, are the same text to the model and so to its loss."""
    raw = np.array(row.ids, dtype="<u4").tobytes()
    if isinstance(row, Row) and row.loss is not None:
        raw += bytes(row.loss)
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little", signed=True)
