"""A set of 64-bit hashes in one flat array: 16 bytes an entry, where a Python set of integers needs about 100."""

import numpy as np


class HashSet:
    """Which 64-bit values have been seen. Open addressing with linear probing, at most half full."""

    def __init__(self) -> None:
        self._table = np.zeros(1 << 12, dtype=np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, value: int) -> bool:
        """Add `value` (its lower 64 bits) and return whether it is new."""
        value = (value & 0xFFFFFFFFFFFFFFFF) or 1  # zero marks a free place
        if 2 * self._count >= len(self._table):
            self._grow()
        if not _place(self._table, value):
            return False
        self._count += 1
        return True

    def _grow(self) -> None:
        old = self._table[self._table != 0]
        self._table = np.zeros(2 * len(self._table), dtype=np.uint64)
        for value in old.tolist():
            _place(self._table, value)


def _place(table: np.ndarray, value: int) -> bool:
    mask = len(table) - 1
    at = value & mask  # the values are hashes already
    while True:
        there = int(table[at])
        if there == 0:
            table[at] = value
            return True
        if there == value:
            return False
        at = (at + 1) & mask
