"""Equal bytes, beside a loop over all pairs."""

import numpy as np
import pytest

from diptych.data.candidates import write_scores
from diptych.data.filters.exact_duplicates import ExactDuplicatesConfig
from tests.data.filters.copies_pools import judged, packed_pictures, picture

NUMBERS = [0, 1, 0, 2, 3, 1, 4, 0, 5, 2, 6]
PICTURES = [(picture(n), f"text {i}") for i, n in enumerate(NUMBERS)]


@pytest.mark.parametrize("per_shard", [2, 5, 50])
def test_the_first_stays_whatever_the_shards(tmp_path, per_shard) -> None:
    pool = packed_pictures(tmp_path / "d", PICTURES, per_shard)
    said = judged(ExactDuplicatesConfig().build(), pool, tmp_path / "state")
    want = [i for i, n in enumerate(NUMBERS) if n in NUMBERS[:i]]
    assert {t for t, r in said.items() if r} == {f"text {i}" for i in want}
    assert set(said.values()) == {"", "duplicate_image"}
    said = judged(ExactDuplicatesConfig(of="pair").build(), pool, tmp_path / "pairs")
    assert set(said.values()) == {""}  # every caption is another


def test_what_went_before_does_not_count(tmp_path) -> None:
    pool = packed_pictures(tmp_path / "d", PICTURES)
    alive = np.array([i != 0 for i in range(len(NUMBERS))])
    said = judged(ExactDuplicatesConfig().build(), pool, tmp_path / "state", alive)
    assert [t for t, r in said.items() if r] == ["text 5", "text 7", "text 9"]


def test_the_best_stays(tmp_path) -> None:
    pool = packed_pictures(tmp_path / "d", PICTURES, per_shard=4)
    scores = np.array([0.1, 0.9, 0.3, 0.5, np.nan, 0.9, 0.2, 0.2, 0.4, np.nan, 0.1])
    at = 0
    for shard in pool.shards:
        rows = pool.rows(shard)
        write_scores(pool, "quality", rows, scores[at : at + len(rows)])
        at += len(rows)
    said = judged(ExactDuplicatesConfig(score="quality").build(), pool, tmp_path / "state")
    assert [t for t, r in said.items() if r] == ["text 0", "text 5", "text 7", "text 9"]


def test_pairs_are_equal_in_image_and_captions(tmp_path) -> None:
    """Packing drops equal records of one dataset; under other roles or further pieces they come again."""
    pictures = [(picture(0), "a"), (picture(0), "b"), (picture(1), "a"), (picture(2), "c")]
    pool = packed_pictures(tmp_path / "d", pictures)
    made, rows = ExactDuplicatesConfig(of="pair").build(), pool.rows(pool.shards[0])
    where, hashes, scores = made.gather(rows, np.ones(4, dtype=bool))
    assert len(set(hashes.tolist())) == 4
    assert scores is None
    parts = [(where, hashes[[0, 1, 0, 3]], None)]
    (tmp_path / "state").mkdir()
    made.settle(iter(parts), pool, tmp_path / "state")
    assert made.reasons(rows, np.ones(4, dtype=bool)) == ["", "", "duplicate_pair", ""]
