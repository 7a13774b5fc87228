"""Arrays mapped from their file: equal to those read from it, without a descriptor, and refused where damaged."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diptych.core.record import Record
from diptych.data.mapped_arrays import map_arrays
from diptych.data.shard_index import Index, index_path
from diptych.data.shards import ShardWriter
from tests.data.pictures import png

ARRAYS = {
    "longs": np.arange(10, dtype=np.int64),
    "rows": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "words": np.array(["png", ""]),
    "number": np.int64(3),
    "none": np.zeros((0, 16), np.uint8),
}


def test_equal_what_is_read(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        path = tmp_path / f"{save.__name__}.npz"
        save(path, **ARRAYS)
        mapped = map_arrays(path)
        assert mapped.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert mapped[name].dtype == np.asarray(array).dtype, name
            assert np.array_equal(mapped[name], array), name


def test_cannot_be_written_and_hold_no_descriptor(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS)
    before = os.listdir("/proc/self/fd")
    mapped = map_arrays(tmp_path / "a.npz")
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ValueError, match="read-only"):
        mapped["longs"][0] = 1


def test_outlive_the_file_that_replaces_theirs(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS)
    mapped = map_arrays(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", longs=np.zeros(1))
    (tmp_path / "b.npz").replace(tmp_path / "a.npz")
    assert np.array_equal(mapped["longs"], ARRAYS["longs"])


def test_any_byte_that_is_changed_is_noticed_or_harmless(tmp_path: Path) -> None:
    """A byte of a zip that nothing reads, such as a date, may differ; then every array is still the same."""
    path = tmp_path / "a.npz"
    np.savez(path, **ARRAYS)
    whole = path.read_bytes()
    noticed = 0
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            mapped = map_arrays(path)
        except Exception:
            noticed += 1
        else:
            assert all(np.array_equal(mapped[n], ARRAYS[n]) for n in mapped.keys() & ARRAYS.keys())
    assert noticed > len(whole) // 7 * 0.5


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="unpickled"):
        map_arrays(tmp_path / "a.npz")


def test_an_empty_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(Exception, match="zip"):
        map_arrays(tmp_path / "a.npz")


def test_an_index_is_pickled_as_its_path(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        for i in range(300):
            writer.add(Record.pair(f"k{i}", png(i % 3), "png", (f"c{i}",)), [(32, 24)])
    index = Index.load(index_path(tmp_path / "00000.tar"))
    pickled = pickle.dumps(index)
    assert len(pickled) < 1_000
    assert np.array_equal(pickle.loads(pickled).uid, index.uid)


def test_a_process_that_maps_does_not_hold(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones(4_000_000))
    script = """
import sys
from diptych.data.mapped_arrays import map_arrays
def anonymous():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon"))
before = anonymous()
assert map_arrays(sys.argv[1])["a"].sum() == 4_000_000
print(anonymous() - before)
"""
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.npz")], capture_output=True, text=True)
    assert int(run.stdout) < 8_000, run.stderr  # kB, of 31,250
