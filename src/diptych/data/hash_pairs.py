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
CHUNK = 1 << 16
"""Meetings that are compared at once: what is held of them stays in a core's own cache."""

FLUSH = 1 << 10
"""Pairs that are handed out together, where many rounds find few each."""

DENSE = 1 / 3
"""Where so many of the rows are still compared, all are: reading them in a row is faster than picking."""

SPREAD = 2 / 3
"""Measured on 6,254 drawings: 16 bits of their perceptual hashes, in two blocks, part them as 11.1 random ones
would (in three blocks 21 bits as 11.5, beyond which there are none but the near copies among them)."""


def pairs_within(
    hashes: UInt64[ndarray, " n"], most_bits: int, most_compared: int = 0, gone: Bool[ndarray, " n"] | None = None
) -> Iterator[tuple[Int64[ndarray, " p"], Int64[ndarray, " p"]]]:
    """The rows (i, j), i < j, of pairs that differ in at most `most_bits` bits, each pair once, some at a time.

    most_compared  with how many of those before it that share its blocks a hash is compared at most in each table; 0:
                   all. Hashes that thousands have in common cost the square of their number otherwise; pairs that are
                   farther apart than that in the first table where they meet are missed
    gone           rows that need no further pair as the later one; whoever takes the pairs may set them on the way
    """
    gone = np.zeros(len(hashes), dtype=bool) if gone is None else gone
    c = _choose(len(hashes), most_bits)
    masks = _blocks(most_bits + c)
    for chosen in combinations(range(len(masks)), c):
        row, rank = _table(hashes, masks[list(chosen)])
        # a pair that agrees in more blocks meets in more tables: the first one counts
        lower = [masks[k] for k in range(chosen[-1]) if k not in chosen]
        for i, j in _meetings(hashes, row, rank, most_bits, most_compared, gone):
            differing = hashes[i] ^ hashes[j]
            first = np.ones(len(i), dtype=bool)
            for mask in lower:
                first &= (differing & mask) != 0
            if first.any():
                yield i[first], j[first]


def _table(hashes: UInt64[ndarray, " n"], masks: UInt64[ndarray, " c"]) -> tuple[ndarray, ndarray]:
    """The rows that share all blocks in `masks` with another, sorted by these blocks and then by number; and how many
    with the same blocks come before each."""
    n = len(hashes)
    low = np.uint64(max(1, (n - 1).bit_length()))
    if sum(int(m).bit_count() for m in masks) + int(low) <= BITS:
        # blocks and row in one word: numbers are sorted several times faster than their places are found
        word, at = np.arange(n, dtype=np.uint64), int(low)
        for mask in masks.tolist():
            begin = (mask & -mask).bit_length() - 1
            part = hashes & np.uint64(mask)
            word |= part << np.uint64(at - begin) if at >= begin else part >> np.uint64(begin - at)
            at += mask.bit_count()
        word.sort()
        row = (word & np.uint64((1 << int(low)) - 1)).astype(np.int64)
        key = word >> low
    else:
        key = hashes & np.bitwise_or.reduce(masks)
        row = np.argsort(key, kind="stable")
        key = key[row]
    again = np.zeros(n + 1, dtype=bool)
    again[1:n] = key[1:] == key[:-1]
    met = again[:-1] | again[1:]
    row, new = row[met], ~again[:-1][met]
    at_row = np.arange(len(row))
    return row, at_row - np.maximum.accumulate(np.where(new, at_row, 0))


def _meetings(
    hashes: UInt64[ndarray, " n"],
    row: Int64[ndarray, " m"],
    rank: Int64[ndarray, " m"],
    most_bits: int,
    most_compared: int,
    gone: Bool[ndarray, " n"],
) -> Iterator[tuple[Int64[ndarray, " p"], Int64[ndarray, " p"]]]:
    """The near pairs of one table: each row with the one before it, then with the one before that, and so on."""
    word = hashes[row]
    near, far = list[ndarray](), list[ndarray]()
    back, active = 1, np.flatnonzero((rank >= 1) & ~gone[row])
    while len(active) and (not most_compared or back <= most_compared):
        for places in _close(word, active, back, most_bits):
            places = places[(rank[places] >= back) & ~gone[row[places]]]
            near.append(row[places - back])
            far.append(row[places])
        # few are handed out at once, so that what they tell (`gone`) is known before the next round; not too few
        if near and (back & (back - 1) == 0 or sum(map(len, near)) >= FLUSH):
            yield np.concatenate(near), np.concatenate(far)
            near, far = [], []
        back += 1
        left = rank[active] >= back
        if back & (back - 1) == 0:
            left &= ~gone[row[active]]
        active = active[left]
    if near:
        yield np.concatenate(near), np.concatenate(far)


def _close(
    word: UInt64[ndarray, " m"], active: Int64[ndarray, " a"], back: int, most_bits: int
) -> Iterator[Int64[ndarray, " p"]]:
    """The places of `active`, some at a time, whose word differs in few bits from that `back` places before; where
    most are active, other places too."""
    dense = len(active) > DENSE * (len(word) - back)
    for start in range(back if dense else 0, len(word) if dense else len(active), CHUNK):
        if dense:
            stop = min(start + CHUNK, len(word))
            differing = word[start:stop] ^ word[start - back : stop - back]
            found = np.flatnonzero(count_bits(differing) <= most_bits) + start
        else:
            places = active[start : start + CHUNK]
            found = places[count_bits(word[places] ^ word[places - back]) <= most_bits]
        if len(found):
            yield found


def count_bits(words: UInt64[ndarray, " n"]) -> UInt8[ndarray, " n"]:
    """How many bits of each word are set."""
    return np.bitwise_count(words) if hasattr(np, "bitwise_count") else count_bits_in_fields(words)


def count_bits_in_fields(words: UInt64[ndarray, " n"]) -> UInt8[ndarray, " n"]:
    """The same where numpy is older than 2 (Warren, "Hacker's Delight", section 5-1: sums of ever wider fields)."""
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
