"""Decoded pixels of a whole split in memory: every image is decoded once, not once an epoch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from diptych.core.errors import ConfigError, DataError, ShardError
from diptych.core.progress import track
from diptych.data.dataset import Split

_AT_ONCE = 256


class Pixels:
    """The images of a split at their stored size, uint8. Forked workers share its memory; nobody writes to it."""

    def __init__(self, split: Split, decode: Callable[[bytes], Tensor], threads: int) -> None:
        sizes = np.array([split.image_size(i) for i in range(len(split))], dtype=np.int64).reshape(-1, 2)
        self._starts = np.concatenate([[0], np.cumsum(sizes.prod(1) * 3)])
        self._heights, self._widths = sizes[:, 1], sizes[:, 0]
        self._pixels = np.empty(int(self._starts[-1]), dtype=np.uint8)
        self.alike = len(sizes) > 0 and bool((sizes == sizes[0]).all())
        self.bad: dict[int, str] = {}
        starts = range(0, len(split), _AT_ONCE)

        def decoded(item: tuple[int, bytes | DataError]) -> None:
            i, data = item
            try:
                if isinstance(data, DataError):
                    raise data
                pixels = decode(data)
                if pixels.shape[1:] != (self._heights[i], self._widths[i]):
                    raise DataError(f"an image must have the size that its index says; got {tuple(pixels.shape[1:])}.")
                rows = pixels.permute(1, 2, 0).reshape(-1).numpy()
                self._pixels[self._starts[i] : self._starts[i + 1]] = rows
            except DataError as error:
                self.bad[i] = str(error)

        with ThreadPoolExecutor(max(1, threads)) as pool:
            for start in track(starts, "decoding into memory"):
                part = [(i, _bytes(split, i)) for i in range(start, min(start + _AT_ONCE, len(split)))]
                list(pool.map(decoded, part))

    def check(self, i: int) -> None:
        """Raise DataError if image i could not be decoded."""
        if i in self.bad:
            raise DataError(self.bad[i])

    def gather(self, records: Int64[np.ndarray, " b"]) -> UInt8[Tensor, "b 3 h w"]:
        """Copies of some images, channels last in memory. Only where all are `alike`: of one size."""
        height, width = int(self._heights[0]), int(self._widths[0])
        rows = self._pixels.reshape(-1, height, width, 3)[records]
        return torch.from_numpy(rows).permute(0, 3, 1, 2)

    def __getitem__(self, i: int) -> UInt8[Tensor, "3 h w"]:
        """Image i; a view, to be read only. Raises DataError if it could not be decoded."""
        self.check(i)
        rows = self._pixels[self._starts[i] : self._starts[i + 1]]
        return torch.from_numpy(rows).view(int(self._heights[i]), int(self._widths[i]), 3).permute(2, 0, 1)

    @property
    def megabytes(self) -> float:
        """How much memory they take."""
        return self._pixels.nbytes / 2**20


def pixel_megabytes(split: Split, at_most: float) -> float:
    """What `Pixels` of a split would take, or, once a sample of it says far more than `at_most`, that guess."""
    n = len(split)
    some = range(0, n, max(1, n // 1000))
    mean = sum(_count(split, i) for i in some) / max(1, len(some))
    if mean * n > 2 * at_most * 2**20:
        return mean * n / 2**20
    return sum(_count(split, i) for i in range(n)) / 2**20


def check_budget(split: Split, budget_mb: float) -> None:
    """Raise ConfigError if the pixels of `split` do not fit into `budget_mb`."""
    need = pixel_megabytes(split, budget_mb)
    if need > budget_mb:
        raise ConfigError(
            f"LoaderConfig.cache_mb must be at least {need:,.0f} to keep the pixels of {split.name} in memory; "
            f"got {budget_mb:,.0f}. Raise it, pack with a smaller --resize, or set cache=none."
        )


def _count(split: Split, i: int) -> int:
    width, height = split.image_size(i)
    return width * height * 3


def _bytes(split: Split, i: int) -> bytes | DataError:
    try:
        return split.image_bytes(i)
    except ShardError:
        raise
    except DataError as error:
        return error
