"""A pool by shards, with the scores written of it."""

import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.data.candidates import CandidatePool, write_scores
from tests.data.curation_pools import packed_pool


def test_rows_are_the_records_of_their_shard_in_order(tmp_path) -> None:
    captions = [[f"caption {i}", "other"] for i in range(10)]
    pool = CandidatePool(packed_pool(tmp_path / "d", captions))
    assert [str(s) for s in pool.shards] == ["train-00000", "train-00001", "train-00002"]
    assert len(pool) == 10
    assert [pool.records_of(s) for s in pool.shards] == [4, 4, 2]
    split = pool.dataset.split("train")
    place = 0
    for shard in pool.shards:
        rows = pool.rows(shard)
        for i in range(len(rows)):
            assert rows.uids[i].tobytes().hex() == split.uid(place)
            assert rows.captions[i] == captions[place]
            assert rows.image(i) == split.image_bytes(place)
            assert (int(rows.widths[i]), int(rows.heights[i])) == split.image_size(place)
            assert rows.image_ids[i] == split.image_id(place)
            place += 1
    assert pool.rows(pool.shards[2]).texts == ["caption 8", "caption 9"]


def test_scores_are_read_back_in_the_order_of_the_records(tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", [["a"], ["b"], ["c"]]))
    rows = pool.rows(pool.shards[0])
    with pytest.raises(DataError, match=r"scores called 'clip' must be there .* there are none"):
        rows.scores("clip")
    write_scores(pool, "clip", rows, np.array([0.25, 0.5, 0.75]))
    assert rows.scores("clip").tolist() == [0.25, 0.5, 0.75]
    assert pool.score_names() == ["clip"]
    with pytest.raises(DataError, match="one a record; got 2 for 3"):
        write_scores(pool, "clip", rows, np.zeros(2))
    with pytest.raises(DataError, match="a name of scores must be"):
        rows.scores("../clip")
