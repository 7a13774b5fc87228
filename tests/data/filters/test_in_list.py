"""Scores of a list."""

import numpy as np
import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool, write_scores
from diptych.data.filters.in_list import InListConfig
from tests.data.curation_pools import packed_pool
from tests.data.filters.judged import judged


def test_reasons(tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", [[f"c {i}"] for i in range(5)], per_shard=5))
    write_scores(pool, "cluster", pool.rows(pool.shards[0]), np.array([3, 99_999, 7, np.nan, 3.5]))
    (tmp_path / "hit.txt").write_text("3\n99999\n")
    expected = ["", "", "not_in_list", "no_score", "not_in_list"]
    assert judged(pool, InListConfig(score="cluster", file=str(tmp_path / "hit.txt")), tmp_path) == expected
    assert judged(pool, InListConfig(score="cluster", values=(3, 99_999)), tmp_path) == expected


def test_a_list_must_be_there(tmp_path) -> None:
    with pytest.raises(ConfigError, match="values or a file"):
        InListConfig().build()
    with pytest.raises(ConfigError, match="not both"):
        InListConfig(values=(1,), file="x").build()
    with pytest.raises(ConfigError, match="a whole number a line"):
        InListConfig(file=str(tmp_path / "none.txt")).build()
    (tmp_path / "bad.txt").write_text("three\n")
    with pytest.raises(ConfigError, match="a whole number a line"):
        InListConfig(file=str(tmp_path / "bad.txt")).build()
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        InListConfig(file=str(tmp_path / "empty.txt")).build()
