"""A lot that neither order nor shards change."""

from diptych.data.candidates import CandidatePool
from diptych.data.filters.sample import SampleConfig
from tests.data.curation_pools import packed_pool
from tests.data.filters.judged import judged


def kept(pool: CandidatePool, folder, **settings) -> set[str]:
    said = judged(pool, SampleConfig(**settings), folder)
    assert set(said) <= {"", "not_sampled"}
    uids = [u.tobytes().hex() for s in pool.shards for u in pool.rows(s).uids]
    return {u for u, r in zip(uids, said, strict=True) if not r}


def test_the_same_stay_whatever_the_shards(tmp_path) -> None:
    captions = [[f"caption {i}"] for i in range(200)]
    wide = CandidatePool(packed_pool(tmp_path / "wide", captions, per_shard=200))
    narrow = CandidatePool(packed_pool(tmp_path / "narrow", captions, per_shard=30))
    found = kept(wide, tmp_path, share=0.3)
    assert found == kept(narrow, tmp_path, share=0.3)
    assert abs(len(found) - 60) < 4 * (200 * 0.3 * 0.7) ** 0.5
    assert found < kept(wide, tmp_path, share=0.6) < kept(wide, tmp_path, share=1)
    assert len(kept(wide, tmp_path, share=1)) == 200
    assert found != kept(wide, tmp_path, share=0.3, seed=1)
