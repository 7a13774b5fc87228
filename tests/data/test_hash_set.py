"""The flat set of hashes against Python's own."""

import random

from diptych.data.hash_set import HashSet


def test_equals_a_python_set() -> None:
    rng = random.Random(0)
    values = [rng.choice([rng.getrandbits(64), rng.getrandbits(14), -rng.getrandbits(63), 0]) for _ in range(8_000)]
    ours, plain = HashSet(), set[int]()
    for v in values:
        key = (v & (2**64 - 1)) or 1
        assert ours.add(v) == (key not in plain)
        plain.add(key)
    assert len(ours) == len(plain)


def test_memory_is_a_few_bytes_an_entry() -> None:
    ours = HashSet()
    for v in range(1, 9_001):
        ours.add(v * 0x9E3779B97F4A7C15)
    assert ours._table.nbytes <= 40 * len(ours)
