"""Vectors beside a dataset."""

import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.data.candidates import CandidatePool
from diptych.data.vectors import has_vector, read_vectors, unit_vectors, vector_names, vector_path, write_vectors
from tests.data.curation_pools import packed_pool


@pytest.fixture
def pool(tmp_path) -> CandidatePool:
    return CandidatePool(packed_pool(tmp_path / "d", [["a"], ["b"], ["c"]]))


def test_vectors_are_read_back_in_the_order_of_the_records(pool) -> None:
    rows = pool.rows(pool.shards[0])
    with pytest.raises(DataError, match=r"vectors called 'clip' must be there .* there are none"):
        read_vectors(pool, "clip", rows)
    made = np.random.default_rng(0).normal(size=(3, 4))
    path = write_vectors(pool, "clip", rows, made)
    assert read_vectors(pool, "clip", rows).tolist() == made.astype(np.float16).tolist()
    assert vector_names(pool) == ["clip"]
    beside = path.with_name(path.stem + ".uids.npy")
    np.save(beside, np.load(beside)[[2, 0, 1]])
    assert read_vectors(pool, "clip", rows).tolist() == made.astype(np.float16)[[1, 2, 0]].tolist()
    np.save(beside, np.load(beside)[[0, 0, 1]])
    with pytest.raises(DataError, match="1 have none"):
        read_vectors(pool, "clip", rows)


def test_what_is_no_array_of_numbers_is_refused(pool) -> None:
    rows = pool.rows(pool.shards[0])
    with pytest.raises(DataError, match="one a record"):
        write_vectors(pool, "clip", rows, np.zeros((2, 4)))
    with pytest.raises(DataError, match="a name of vectors must be"):
        vector_path(pool, "../clip", rows.shard)
    path = write_vectors(pool, "clip", rows, np.zeros((3, 4)))
    np.save(path, np.array([{"a": 1}] * 3, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Delete it and embed again"):
        read_vectors(pool, "clip", rows)
    np.save(path, np.zeros((3, 4)))
    with pytest.raises(DataError, match="must be float16"):
        read_vectors(pool, "clip", rows)


def test_unit_vectors_and_rows_without_one() -> None:
    made = np.array([[3, 4], [0, 0], [np.nan, 1]], dtype=np.float16)
    np.testing.assert_allclose(unit_vectors(made)[:2], [[0.6, 0.8], [0, 0]], atol=1e-6)
    assert has_vector(made).tolist() == [True, True, False]
    assert has_vector(np.zeros((3, 0))).tolist() == [False] * 3
