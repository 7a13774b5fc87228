"""Random numbers for many samples at once, each a pure function of its own key: the batch around it changes nothing.

A generator object for each sample costs more than the augmentation that it feeds, so whole batches are drawn with
splitmix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014): stream `name` of key k is
the sequence that starts at mix(k xor fold(name)). Streams of different names never disturb one another, so switching
one operation on leaves the draws of all others as they were.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy import ndarray

from diptych.core.seeds import fold

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """The random numbers of b samples, by name."""

    def __init__(self, keys: list[int]) -> None:
        self._keys = np.array(keys, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._keys)

    def words(self, name: str, count: int) -> ndarray:
        """(b, count) uniform 64-bit words."""
        state = _mix(self._keys ^ np.uint64(fold(name)))[:, None]
        return _mix(state + np.arange(1, count + 1, dtype=np.uint64) * _GAMMA)

    def uniform(self, name: str, count: int = 1, low: float = 0.0, high: float = 1.0) -> Float64[ndarray, "b {count}"]:
        """Uniform in [low, high), with 53 random bits."""
        return (self.words(name, count) >> np.uint64(11)) * (2.0**-53 * (high - low)) + low

    def happens(self, name: str, probability: float) -> ndarray:
        """(b,) booleans, true with `probability`."""
        return self.uniform(name)[:, 0] < probability

    def normal(self, name: str, count: int) -> Float64[ndarray, "b {count}"]:
        """Standard normal (Box and Muller, 1958)."""
        u = self.uniform(name, 2 * count)
        return np.sqrt(-2 * np.log1p(-u[:, :count])) * np.cos(2 * np.pi * u[:, count:])

    def bytes(self, name: str, count: int) -> UInt8[ndarray, "b {count}"]:
        """Uniform bytes, eight from a word."""
        return self.words(name, -(-count // 8)).astype("<u8").view(np.uint8)[:, :count]

    def coarse_normal(self, name: str, count: int) -> Float32[ndarray, "b {count}"]:
        """Standard normal in 256 steps, for noise on every pixel: a table look-up of a random byte."""
        return _normal_table()[self.bytes(name, count)]


def _mix(x: ndarray) -> ndarray:
    x = x + _GAMMA
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


@lru_cache(1)
def _normal_table() -> Float32[ndarray, " 256"]:
    """The 256 quantiles of the standard normal at (i + 1/2) / 256, scaled to unit variance."""
    from statistics import NormalDist

    q = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])
    return (q / q.std()).astype(np.float32)
