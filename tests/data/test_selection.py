"""Selections: DataComp's file, combined as sets, sampled by a hash."""

import numpy as np
import pytest

from diptych.core.errors import ConfigError, DataError
from diptych.data.selection import Selection, as_pairs, uids_of

UIDS = [f"{(7919 * i) % 1009:032x}" for i in range(200)]


def test_the_file_is_datacomps(tmp_path) -> None:
    chosen = Selection.of(UIDS)
    chosen.save(tmp_path / "s.npy")
    raw = np.load(tmp_path / "s.npy")
    assert raw.dtype == np.dtype("u8,u8")
    expected = sorted((int(u[:16], 16), int(u[16:], 16)) for u in UIDS)
    assert [tuple(map(int, x)) for x in raw] == expected
    assert Selection.load(tmp_path / "s.npy") == chosen
    chosen.save(tmp_path / "selection.npy")
    assert Selection.load(tmp_path) == chosen


def test_uids_there_and_back() -> None:
    raw = np.frombuffer(b"".join(bytes.fromhex(u) for u in UIDS), np.uint8).reshape(-1, 16)
    assert np.array_equal(uids_of(as_pairs(raw)), raw)
    chosen = Selection.of(UIDS[:50])
    assert chosen.holds(raw).tolist() == [u in UIDS[:50] for u in UIDS]
    assert not Selection.of([]).holds(raw).any()


def test_they_combine_as_sets() -> None:
    a, b = Selection.of(UIDS[:100]), Selection.of(UIDS[50:150])
    assert a & b == Selection.of(UIDS[50:100])
    assert a | b == Selection.of(UIDS[:150])
    assert a - b == Selection.of(UIDS[:50])
    assert len(a | a) == 100
    assert (a & b).fingerprint == Selection.of(reversed(UIDS[50:100])).fingerprint


def test_a_larger_sample_holds_the_smaller() -> None:
    whole = Selection.of(UIDS)
    small, large = whole.sample(20, 3), whole.sample(60, 3)
    assert len(small) == 20
    assert small & large == small
    assert whole.sample(20, 4) != small
    assert small.sample(20, 3) == small
    with pytest.raises(ConfigError, match="got 201"):
        whole.sample(201)


def test_what_is_no_selection_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match="is not there"):
        Selection.load(tmp_path / "none.npy")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match="got float64"):
        Selection.load(tmp_path / "x.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="must be a numpy file"):
        Selection.load(tmp_path / "o.npy")
