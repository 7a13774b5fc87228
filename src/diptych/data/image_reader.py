"""The images of a split in order, decoded ahead by threads; what cannot be decoded is left out and named.

For evals and indexes, where a missing picture must be told from a wrong one. Batches hold the places they came from.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from diptych.core.errors import DataError, ShardError
from diptych.core.image_format import ImageFormat
from diptych.data.decode import decode_image, resize_image

_AHEAD = 2  # batches that are decoded while the model works
_THREADS = 2


class ImageBatch(NamedTuple):
    """Some images of a split, decoded: their places in the split, a hash of each one's bytes, and the pixels."""

    places: list[int]
    hashes: list[bytes]
    images: UInt8[Tensor, "b 3 s s"]


class ImageReader:
    """Batches of a split's images as a model wants them, unaugmented. `broken`: what could not be decoded, and why."""

    def __init__(self, split: Any, format: ImageFormat, batch_size: int) -> None:
        self.split = split
        self.format = format
        self.batch_size = batch_size
        self.broken: dict[int, str] = {}

    def batches(self, places: Sequence[int]) -> Iterator[ImageBatch]:
        """The images at `places` in order, decoded ahead by threads; broken ones are left out and noted."""
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[list[Any]] = deque()
            starts = iter(range(0, len(places), self.batch_size))
            while True:
                while len(waiting) < _AHEAD and (start := next(starts, None)) is not None:
                    waiting.append([self._submit(pool, p) for p in places[start : start + self.batch_size]])
                if not waiting:
                    return
                loaded = [x for x in (f.result() for f in waiting.popleft()) if x is not None]
                if loaded:
                    yield ImageBatch(
                        [x[0] for x in loaded], [x[1] for x in loaded], torch.stack([x[2] for x in loaded])
                    )

    def _submit(self, pool: ThreadPoolExecutor, place: int) -> "Future[tuple[int, bytes, Tensor] | None]":
        """Bytes are read here, in the caller's thread: a split closes maps of shards while it opens others."""
        try:
            data = self.split.image_bytes(place)
        except ShardError:  # not one record but a file of them: it must be mended, not passed over
            raise
        except DataError as error:
            self.broken[place] = str(error)
            nothing: Future[tuple[int, bytes, Tensor] | None] = Future()
            nothing.set_result(None)
            return nothing
        return pool.submit(self._load, place, data)

    def _load(self, place: int, data: bytes) -> tuple[int, bytes, Tensor] | None:
        try:
            image = resize_image(decode_image(data), self.format)
        except DataError as error:
            self.broken[place] = str(error)
            return None
        return place, hashlib.blake2b(data, digest_size=16).digest(), image
