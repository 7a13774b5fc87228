"""The images of a batch whose records hold any number of them, in the order of their records.

The first image of each record is made as a pair's image is, with the sample's own key, straight into its row. A further
one has a key of its own, fold(key, "image", j). Where each record has one image, the batch is the very same as without.
"""

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy import ndarray
from torch import Tensor

from diptych.core.image_format import ImageFormat
from diptych.core.seeds import fold
from diptych.data.views import Views


class Pictures(NamedTuple):
    """Images, which record of the batch each belongs to, its number in it, the key of its draws, and a hash of its
    content where its number is not 0."""

    images: UInt8[Tensor, "i 3 s s"]
    record: Int64[ndarray, " i"]
    number: Int64[ndarray, " i"]
    keys: list[int]
    further_ids: Int64[ndarray, " i"]


class Album:
    """The images of the samples with `keys`, filled record by record; at most `most` of a record's are taken."""

    def __init__(self, views: Views, keys: list[int], image_format: ImageFormat, most: int) -> None:
        self._views, self._keys, self._format, self._most = views, keys, image_format, most
        self._firsts = views.open(keys, image_format)
        self._counts = [1] * len(keys)
        self._further: dict[int, tuple[Tensor, list[int], list[int]]] = {}

    def add(self, row: int, record: int, count: int) -> None:
        """Read the first `count` images of a record for a row. Raises DataError if one cannot be read."""
        if count == 1 == self._counts[row]:  # a pair, as most are: nothing to note
            self._firsts.add(row, record)
            return
        count = min(count, self._most)
        self._further.pop(row, None)
        if count > 0:
            self._firsts.add(row, record)
        if count > 1:
            keys = [fold(self._keys[row], "image", number) for number in range(1, count)]
            views = self._views.open(keys, self._format)
            ids = []
            for number in range(1, count):
                views.add(number - 1, record, number)
                ids.append(content_id(self._views.split.image_bytes(record, number)))
            self._further[row] = views.finished(), keys, ids
        self._counts[row] = count

    @property
    def counts(self) -> Int64[ndarray, " b"]:
        """How many images each row was given."""
        return np.array(self._counts, dtype=np.int64)

    def finished(self, kept: Int64[ndarray, " b"]) -> Pictures:
        """The first `kept` images of each row, at most as many as were added. To be called once, when every row
        was added."""
        firsts = self._firsts.finished()
        record = np.repeat(np.arange(len(kept)), kept)
        if (kept == 1).all():
            zeros = np.zeros(len(kept), dtype=np.int64)
            return Pictures(firsts, record, zeros, self._keys, zeros)
        parts, index, keys, ids, number = [firsts], list[int](), list[int](), list[int](), list[int]()
        behind = len(firsts)
        for row, count in enumerate(kept.tolist()):
            if count:
                index.append(row)
                keys.append(self._keys[row])
                ids.append(0)
            if count > 1:
                images, further_keys, further_ids = self._further[row]
                parts.append(images[: count - 1])
                index += range(behind, behind + count - 1)
                keys += further_keys[: count - 1]
                ids += further_ids[: count - 1]
                behind += count - 1
            number += range(count)
        images = torch.cat(parts)[torch.tensor(index, dtype=torch.int64)]
        return Pictures(images, record, np.array(number, dtype=np.int64), keys, np.array(ids, dtype=np.int64))


def content_id(data: bytes) -> int:
    """A signed 64-bit hash of an encoded image: as the index holds it for the first of a record."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little", signed=True)
