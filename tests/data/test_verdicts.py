"""A byte a record, a file a shard."""

import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.data.candidates import CandidatePool
from diptych.data.verdicts import read_verdicts, starts_of, write_verdicts
from tests.data.curation_pools import packed_pool


def test_a_shard_reads_its_own(tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", [[f"caption {i}"] for i in range(7)], per_shard=3))
    assert starts_of(pool) == [0, 3, 6]
    write_verdicts(tmp_path, pool, np.arange(7, dtype=np.uint8))
    found = [read_verdicts(tmp_path, pool.rows(shard)).tolist() for shard in pool.shards]
    assert found == [[0, 1, 2], [3, 4, 5], [6]]
    with pytest.raises(DataError, match="settled before it judges"):
        read_verdicts(None, pool.rows(pool.shards[0]))
    with pytest.raises(DataError, match="one a record"):
        write_verdicts(tmp_path, pool, np.zeros(9, np.uint8))
