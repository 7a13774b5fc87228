"""Pairs of near hashes, beside the loop over all pairs."""

import numpy as np
import pytest

from diptych.data import hash_pairs
from diptych.data.hash_pairs import count_bits, count_bits_in_fields, pack_hashes, pairs_within
from tests.reference import semdedup as plain


def planted(n: int, seed: int = 0) -> np.ndarray:
    """Random words, and of some of them others that differ in 0 to 12 bits; a few are in the list many times."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 2**64, n, dtype=np.uint64).tolist()
    for k in range(n // 2):
        word = found[int(rng.integers(n))]
        for bit in rng.choice(64, k % 13, replace=False).tolist():
            word ^= 1 << bit
        found.append(word)
    found += found[:3] * 5
    return np.array(found, dtype=np.uint64)[rng.permutation(len(found))]


@pytest.mark.parametrize("most_bits", [0, 1, 3, 6, 12])
@pytest.mark.parametrize("c", [1, 2, 3])
@pytest.mark.parametrize("dense", [0.0, 0.5, 2.0])
def test_every_pair_is_found_once(most_bits, c, dense, monkeypatch) -> None:
    monkeypatch.setattr(hash_pairs, "_choose", lambda n, r: c)
    monkeypatch.setattr(hash_pairs, "CHUNK", 7)
    monkeypatch.setattr(hash_pairs, "FLUSH", 5)
    monkeypatch.setattr(hash_pairs, "DENSE", dense)
    hashes = planted(60)
    found = [(int(a), int(b)) for i, j in pairs_within(hashes, most_bits) for a, b in zip(i, j, strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == plain.pairs_within(hashes.tolist(), most_bits)


def test_rows_that_are_gone_need_no_more_pairs() -> None:
    hashes, gone = np.zeros(50, np.uint64), np.zeros(50, dtype=bool)
    seen = 0
    for i, j in pairs_within(hashes, 2, gone=gone):
        gone[j] = True
        seen += len(i)
    assert gone.tolist() == [False] + [True] * 49
    assert seen == 49  # of 1,225


def test_few_are_compared_where_many_are_alike() -> None:
    found = [
        (int(a), int(b)) for i, j in pairs_within(np.zeros(30, np.uint64), 0, 3) for a, b in zip(i, j, strict=True)
    ]
    assert set(found) == {(i, j) for j in range(30) for i in range(max(0, j - 3), j)}


def test_bits_and_blocks() -> None:
    words = planted(40)
    assert count_bits(words).tolist() == [w.bit_count() for w in words.tolist()]
    assert count_bits_in_fields(words).tolist() == count_bits(words).tolist()
    for count in (1, 7, 8, 13, 64):
        masks = hash_pairs._blocks(count).tolist()
        assert sum(masks) == 2**64 - 1
        assert sum(m.bit_count() for m in masks) == 64
    assert hash_pairs._choose(100, 6) == 1
    assert hash_pairs._choose(10_000_000, 6) > 2
    bits = np.random.default_rng(0).integers(0, 2, (9, 64)).astype(bool)
    near = (bits[:, None] != bits[None]).sum(2)
    packed = pack_hashes(bits)
    assert count_bits((packed[:, None] ^ packed[None]).reshape(-1)).tolist() == near.reshape(-1).tolist()


def test_few_hashes_have_few_pairs() -> None:
    for hashes in ([], [7], [7, 7]):
        found = [(i.tolist(), j.tolist()) for i, j in pairs_within(np.array(hashes, dtype=np.uint64), 2)]
        assert found == ([([0], [1])] if len(hashes) == 2 else [])


def test_a_table_holds_rows_that_meet_by_block_then_number() -> None:
    hashes = np.array([3, 1, 3, 9, 1, 3], dtype=np.uint64)
    for masks in ([0xFF], [2**64 - 1]):  # packed beside the row's number; and too wide for that
        row, rank = hash_pairs._table(hashes, np.array(masks, dtype=np.uint64))
        assert row.tolist() == [1, 4, 0, 2, 5]
        assert rank.tolist() == [0, 1, 0, 1, 2]
