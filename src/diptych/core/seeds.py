"""Random numbers as pure functions of a seed and a place, so that order and draws never depend on who computes them."""

import hashlib

import numpy as np
import torch


def fold(*parts: int | str) -> int:
    """A 63-bit integer that is a pure function of `parts`: ``fold(seed, "augment", n)``."""
    h = hashlib.blake2b(digest_size=8)
    for p in parts:
        b = str(p).encode()
        h.update(len(b).to_bytes(4, "little"))
        h.update(b)
    return int.from_bytes(h.digest(), "little") >> 1


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator seeded with `fold` of `parts`."""
    return np.random.Generator(np.random.Philox(key=fold(*parts)))


def torch_generator(*parts: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator seeded with `fold` of `parts`."""
    return torch.Generator(device=device).manual_seed(fold(*parts))


def permute(n: int, size: int, *key: int | str) -> int:
    """Where the n-th place of a shuffled range(size) points: a keyed permutation in O(1) memory.

    A four-round Feistel network over the next power of four, walked until the value falls inside the range
    (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). No list of a billion indices is ever made.
    """
    if size <= 1:
        return 0
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    keys = round_keys(*key)
    x = n
    while True:
        left, right = x >> half_bits, x & mask
        for k in keys:
            left, right = right, left ^ (_mix(right ^ k) & mask)
        x = (left << half_bits) | right
        if x < size:
            return x


_KEYS: dict[tuple[int | str, ...], tuple[int, ...]] = {}


def round_keys(*key: int | str) -> tuple[int, ...]:
    """The four round keys of `permute`; the last few hundred are remembered."""
    keys = _KEYS.get(key)
    if keys is None:
        if len(_KEYS) > 256:
            _KEYS.clear()
        keys = _KEYS[key] = tuple(fold("permute", i, *key) for i in range(4))
    return keys


def _mix(x: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)
