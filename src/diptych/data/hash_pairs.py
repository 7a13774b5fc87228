"""All pairs of 64-bit hashes that differ in few bits, without comparing all with all.

The bits are cut into r + c blocks. Two hashes that differ in at most r bits agree in at least c whole blocks, so with a
table for every choice of c blocks each such pair meets in a table (Manku, Jain and Das Sarma, "Detecting
near-duplicates for web crawling", WWW 2007, section 3). Nothing is missed, and only those that meet are compared. More
blocks mean more tables with fewer meetings in each; c is chosen by the number of hashes.

Hashes of pictures are not random: c blocks of them tell as much as two thirds of their bits (SPREAD).
"""

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import comb

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt64
from numpy import ndarray

BITS = 64
CHUNK = 1 << 18
"""Meetings that are compared at once."""

SPREAD = 2 / 3
"""Measured on 6,285 drawings: 16 bits of their perceptual hashes, in two blocks, part them as 10.9 random ones would,
21 bits in three blocks as 13.5."""


def pairs_within(
    hashes: UInt64[ndarray, " n"], most_bits: int, most_compared: int = 0, gone: Bool[ndarray, " n"] | None = None
) -> Iterator[tuple[Int64[ndarray, " p"], Int64[ndarray, " p"]]]:
    """The rows (i, j), i < j, of pairs that differ in at most `most_bits` bits, each pair once, some at a time.

    most_compared  with how many of those before it that share its blocks a hash is compared at most in each table; 0:
                   all. Hashes that thousands have in common cost the square of their number otherwise; pairs that are
                   farther apart than that in the first table where they meet are missed
    gone           rows that need no further pair as the later one; whoever takes the pairs may set them on the way
    """
    n = len(hashes)
    gone = np.zeros(n, dtype=bool) if gone is None else gone
    c = _choose(n, most_bits)
    masks = _blocks(most_bits + c)
    for chosen in combinations(range(len(masks)), c):
        key = hashes & np.bitwise_or.reduce(masks[list(chosen)])
        order = np.argsort(key, kind="stable").astype(np.int32 if n < 2**31 else np.int64)  # equals: earlier rows first
        rank = _ranks(key[order])
        del key
        lower = [masks[k] for k in range(chosen[-1]) if k not in chosen]
        back, active = 1, np.flatnonzero(rank).astype(order.dtype)
        while len(active) and (not most_compared or back <= most_compared):
            for start in range(0, len(active), CHUNK):
                later = active[start : start + CHUNK]
                i, j = order[later - back].astype(np.int64), order[later].astype(np.int64)
                differing = hashes[i] ^ hashes[j]
                found = (count_bits(differing) <= most_bits) & ~gone[j]
                for mask in lower:  # a pair that agrees in more blocks meets in more tables: the first one counts
                    found &= (differing & mask) != 0
                if found.any():
                    yield i[found], j[found]
            back += 1
            active = active[(rank[active] >= back) & ~gone[order[active]]]


def count_bits(words: UInt64[ndarray, " n"]) -> UInt8[ndarray, " n"]:
    """How many bits of each word are set (Warren, "Hacker's Delight", section 5-1: sums of ever wider fields)."""
    one, two, four = np.uint64(1), np.uint64(2), np.uint64(4)
    x = words - ((words >> one) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> two) & np.uint64(0x3333333333333333))
    x = (x + (x >> four)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return ((x * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)


def pack_hashes(bits: Bool[ndarray, "n 64"]) -> UInt64[ndarray, " n"]:
    """Hashes of 64 truth values as words."""
    return np.packbits(bits, axis=1).view(np.uint64).reshape(-1)


def _choose(n: int, most_bits: int) -> int:
    """The c with the least work on n hashes: a sort of all for each table, and the meetings in it."""

    def work(c: int) -> float:
        return comb(most_bits + c, c) * (n * 20.0 + n * n / 2 / 2.0 ** (SPREAD * BITS * c / (most_bits + c)))

    return min(range(1, min(6, BITS + 1 - most_bits)), key=work)


def _blocks(count: int) -> UInt64[ndarray, " k"]:
    """The masks of `count` blocks of the word, as even as can be."""
    edges = [round(k * BITS / count) for k in range(count + 1)]
    return np.array([(1 << b) - (1 << a) for a, b in pairwise(edges)], dtype=np.uint64)


def _ranks(key: UInt64[ndarray, " n"]) -> ndarray:
    """Of sorted keys, how many equal ones come before each."""
    at = np.arange(len(key), dtype=np.int32 if len(key) < 2**31 else np.int64)
    first = np.ones(len(key), dtype=bool)
    first[1:] = key[1:] != key[:-1]
    return np.asarray(at - np.maximum.accumulate(np.where(first, at, 0)))
