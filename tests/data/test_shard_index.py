"""The index: what damage is noticed."""

from pathlib import Path

import numpy as np
import pytest

from diptych.core.errors import ShardError
from diptych.core.record import Record
from diptych.data.shard_index import Index, index_path
from diptych.data.shards import ShardWriter
from tests.data.pictures import png


@pytest.fixture
def index_file(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path) as writer:
        for i in range(4):
            writer.add(Record.pair(f"k{i}", png(i), "png", (f"c{i}",)), [(32, 24)])
    return index_path(tmp_path / "00000.tar")


def test_holds_no_objects(index_file: Path) -> None:
    with np.load(index_file, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
    index = Index.load(index_file)
    assert [index.key(i) for i in range(4)] == ["k0", "k1", "k2", "k3"]
    assert [s for s, _ in index.members(1)] == ["png", "txt", "json"]


@pytest.mark.parametrize(
    "change",
    [
        {"first": np.array([0, 3, 6, 9, 99])},
        {"first": np.array([0, 6, 3, 9, 12])},
        {"offset": np.full(12, 10**9)},
        {"size": np.full(12, -1)},
        {"suffix": np.full(12, 200, np.uint8)},
        {"uid": np.zeros((3, 16), np.uint8)},
        {"key_end": np.array([0, 2, 4, 6, 100])},
    ],
)
def test_arrays_that_contradict_each_other_are_refused(index_file: Path, change: dict[str, np.ndarray]) -> None:
    with np.load(index_file) as file:
        arrays = {**{n: file[n] for n in file.files}, **change}
    np.savez(index_file, **arrays)
    with pytest.raises(ShardError, match="must be a whole index"):
        Index.load(index_file)


def test_damaged_missing_and_foreign_files_are_named(index_file: Path) -> None:
    whole = index_file.read_bytes()
    for damage in (whole[:100], b"", b"not a zip", whole[:-30]):
        index_file.write_bytes(damage)
        with pytest.raises(ShardError, match="index_tar"):
            Index.load(index_file)
    index_file.unlink()
    with pytest.raises(ShardError, match="must exist beside its tar"):
        Index.load(index_file)


def test_a_pickle_inside_is_not_opened(index_file: Path) -> None:
    np.savez(index_file, version=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ShardError, match="must be a whole index"):
        Index.load(index_file)


def test_another_version_is_refused(index_file: Path) -> None:
    with np.load(index_file) as file:
        arrays = {n: file[n] for n in file.files}
    np.savez(index_file, **{**arrays, "version": np.int64(99)})
    with pytest.raises(ShardError, match="version 1; got 99"):
        Index.load(index_file)
