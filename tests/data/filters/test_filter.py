"""Filters are found by the names of their files; every one keeps the promises of the contract."""

import pickle

import numpy as np
import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool, write_scores
from diptych.data.filters.filter import filter_config, filters
from diptych.data.vectors import write_vectors
from tests.data.curation_pools import packed_pool

NEEDS: dict[str, dict] = {
    "in_list": {"values": (1, 2)},
    "meta_value": {"field": "punsafe", "most": 0.5},
    "word_list": {"words": ("dog",)},
    "text_overlap": {"score": "quality"},
}
"""Settings without which a filter cannot be, by its name; filters that read scores find "quality" written, those
that read vectors "clip"; the pool's dataset holds out a record as the split test."""
CAPTIONS = [["a red dog"], ["dog"], ["a red dog"], ["a cat on a mat", "cat"], ["http://x.y/z.jpg"], ["DSC_0001.JPG"]]


def test_an_unknown_filter_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'caption_length'"):
        filter_config("caption_lenght")


@pytest.mark.parametrize("name", filters())
def test_a_filter_gives_a_reason_or_none_for_each_record_and_always_the_same(name, tmp_path) -> None:
    config = filter_config(name, **NEEDS.get(name, {}))
    assert from_json(to_json(config)) == config
    splits = [{}] * len(CAPTIONS) + [{"split": "test"}]
    pool = CandidatePool(packed_pool(tmp_path / "d", [*CAPTIONS, ["held out"]], splits, per_shard=3))
    for place, shard in enumerate(pool.shards):
        rows = pool.rows(shard)
        write_scores(pool, "quality", rows, np.linspace(0.1, 0.9, len(rows)) + place)
        write_vectors(pool, "clip", rows, np.eye(len(rows), 4))

    def run() -> list[str]:
        made, said = config.build(), []
        alive = [np.ones(pool.records_of(s), dtype=bool) for s in pool.shards]
        if made.gathers:
            (tmp_path / "state").mkdir(exist_ok=True)
            parts = [made.gather(pool.rows(s), a) for s, a in zip(pool.shards, alive, strict=True)]
            made.settle(iter(pickle.loads(pickle.dumps(parts))), pool, tmp_path / "state")
        made = pickle.loads(pickle.dumps(made))
        for shard, a in zip(pool.shards, alive, strict=True):
            said += made.reasons(pool.rows(shard), a)
        return said

    first = run()
    assert len(first) == len(CAPTIONS)
    assert all(isinstance(r, str) and r == r.strip() and " " not in r for r in first)
    assert run() == first
