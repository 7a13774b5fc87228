"""The better half by the score of the painted-over images."""

import numpy as np

from diptych.data.candidates import CandidatePool, write_scores
from diptych.data.filters.text_overlap import TextOverlapConfig
from tests.data.curation_pools import packed_pool
from tests.data.filters.judged import judged


def test_the_better_half_stays(tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", [[f"c {i}"] for i in range(7)], per_shard=4))
    values = np.array([0.1, 0.9, 0.2, 0.8, np.nan, 0.7, 0.3])
    for shard, part in zip(pool.shards, (values[:4], values[4:]), strict=True):
        write_scores(pool, "masked_clip", pool.rows(shard), part)
    low = "text_overlap"
    # of six scores the one in place 3 from above, 0.3, is the last that stays: DataComp's rule of a share
    assert judged(pool, TextOverlapConfig(), tmp_path) == [low, "", low, "", "no_score", "", ""]
    assert judged(pool, TextOverlapConfig(fraction=1), tmp_path) == ["", "", "", "", "no_score", "", ""]
