"""Random numbers as pure functions of a seed and a place, so that order and draws never depend on who computes them."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Int64


def fold(*parts: int | str) -> int:
    """A 63-bit integer that is a pure function of `parts`: ``fold(seed, "augment", n)``."""
    h = hashlib.blake2b(digest_size=8)
    for p in parts:
        h.update(_framed(str(p)))
    return int.from_bytes(h.digest(), "little") >> 1


def folds(prefix: tuple[int | str, ...], numbers: Iterable[int], suffix: tuple[int | str, ...] = ()) -> list[int]:
    """``fold(*prefix, n, *suffix)`` of each n, several times faster than one by one."""
    start = hashlib.blake2b(b"".join(_framed(str(p)) for p in prefix), digest_size=8)
    end = b"".join(_framed(str(p)) for p in suffix)
    found = []
    for n in numbers:
        h = start.copy()
        h.update(_framed(str(n)) + end)
        found.append(int.from_bytes(h.digest(), "little") >> 1)
    return found


def _framed(part: str) -> bytes:
    raw = part.encode()
    return len(raw).to_bytes(4, "little") + raw


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


def permutes(ns: Int64[np.ndarray, " b"], size: int, *key: int | str) -> Int64[np.ndarray, " b"]:
    """`permute` of many places at once."""
    if size <= 1:
        return np.zeros(len(ns), dtype=np.int64)
    half_bits = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half_bits)) - 1)
    keys = np.array(round_keys(*key), dtype=np.uint64)
    x = ns.astype(np.uint64)
    outside = np.arange(len(x))
    while len(outside):
        left, right = x[outside] >> half_bits, x[outside] & mask
        for k in keys:
            left, right = right, left ^ (_mix_all(right ^ k) & mask)
        x[outside] = (left << half_bits) | right
        outside = outside[x[outside] >= size]
    return x.astype(np.int64)


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


def _mix_all(x: np.ndarray) -> np.ndarray:
    """`_mix` of each number."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
