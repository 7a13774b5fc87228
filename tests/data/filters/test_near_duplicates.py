"""Pictures saved anew: planted ones are found and others stay; the search is the loop over all pairs."""

import numpy as np
import pytest
import torch

from diptych.data.curate import CurationConfig, curate
from diptych.data.decode import encode_png
from diptych.data.executors.executor import executor
from diptych.data.filters import near_duplicates as module
from diptych.data.filters.near_duplicates import NearDuplicatesConfig, earlier_copy
from diptych.data.hash_pairs import pack_hashes
from diptych.data.near_copies import sketch_images
from tests.data.filters.copies_pools import CHANGES, changed, judged, packed_pictures, picture
from tests.reference import near_copies as plain

ORIGINALS = 40
PICTURES = [(picture(i), f"own {i}") for i in range(ORIGINALS)] + [
    (changed(i, how), f"{how} {i}") for k, how in enumerate(CHANGES) for i in range(8 * k, 8 * k + 8)
]


@pytest.mark.parametrize("per_shard", [9, 100])
def test_copies_are_found_and_nothing_else(tmp_path, per_shard) -> None:
    pool = packed_pictures(tmp_path / "d", PICTURES, per_shard)
    said = judged(NearDuplicatesConfig().build(), pool, tmp_path / "state")
    gone = {t for t, r in said.items() if r}
    planted = {t for t in said if not t.startswith("own")}
    assert gone <= planted  # precision 1
    assert len(gone) == len(planted)  # recall 1
    assert set(said.values()) == {"", "near_duplicate"}


def test_chains_collapse_to_their_first(tmp_path) -> None:
    rng = np.random.default_rng(0)
    base = np.repeat(rng.integers(0, 256, (1, 768)), 3, axis=0).astype(float)
    step = rng.normal(0, 5, 768)
    miniatures = np.clip(base + np.arange(3)[:, None] * step, 0, 255).astype(np.uint8)
    config = NearDuplicatesConfig(tolerance=0.1)
    hashes = np.zeros(3, np.uint64)
    assert earlier_copy(hashes[:2], miniatures[[0, 2]], config).tolist() == [-1, -1]
    assert earlier_copy(hashes, miniatures, config).tolist() == [-1, 0, 1]


def test_it_is_the_loop_over_all_pairs(monkeypatch) -> None:
    monkeypatch.setattr(module, "VERIFIED", 3)
    rng = np.random.default_rng(1)
    images = []
    for _ in range(8):
        smooth = torch.nn.functional.interpolate(
            torch.from_numpy(rng.random((1, 3, 5, 5))), (32, 32), mode="bicubic"
        ).clamp(0, 1)[0]
        images += [
            (smooth * 255 + torch.from_numpy(rng.normal(0, s, (3, 32, 32)))).clamp(0, 255).byte() for s in (0, 3, 8, 30)
        ]
    images += [images[0], images[5]]
    images = [images[i] for i in rng.permutation(len(images))]
    encoded = [encode_png(i) for i in images]
    sketches, broken = sketch_images(lambda i: encoded[i], range(len(encoded)))
    assert not broken
    config = NearDuplicatesConfig(most_bits=8, tolerance=0.15)
    found = earlier_copy(pack_hashes(sketches.bits.numpy()), sketches.miniatures.numpy(), config)
    arrays = [i.numpy() for i in images]
    minis, hashes = [plain.miniature(a) for a in arrays], [plain.perceptual_hash(a) for a in arrays]
    want = [
        any(
            (hashes[i] != hashes[j]).sum() <= 8 and np.isfinite(plain.apart(minis[i], minis[j], 0.15)) for i in range(j)
        )
        for j in range(len(arrays))
    ]
    assert (found >= 0).tolist() == want
    assert 5 < sum(want) < len(want) - 8


def test_what_cannot_be_decoded_has_its_reason_and_what_went_before_does_not_count(tmp_path, monkeypatch) -> None:
    pool = packed_pictures(tmp_path / "d", [PICTURES[0], PICTURES[ORIGINALS], PICTURES[1]])
    rows = type(pool.rows(pool.shards[0]))
    image = rows.image
    with monkeypatch.context() as patch:
        patch.setattr(rows, "image", lambda self, i: b"broken" if i == 2 else image(self, i))
        said = judged(NearDuplicatesConfig().build(), pool, tmp_path / "state")
    assert list(said.values()) == ["", "near_duplicate", "unreadable_image"]
    alive = np.array([False, True, True])
    assert set(judged(NearDuplicatesConfig().build(), pool, tmp_path / "state", alive).values()) == {""}


def test_shards_and_workers_change_nothing(tmp_path) -> None:
    kept = set()
    for per_shard, jobs in ((10, 2), (100, 1)):
        packed_pictures(tmp_path / f"d{jobs}", PICTURES, per_shard)
        out = tmp_path / f"out{jobs}"
        curate(tmp_path / f"d{jobs}", CurationConfig(filters=(NearDuplicatesConfig(),)), out, executor("pool", jobs))
        kept.add((out / "selection.npy").read_bytes())
    assert len(kept) == 1


def test_equal_ones_are_found_among_equal_hashes() -> None:
    rng = np.random.default_rng(0)
    hashes = np.array([5, 7, 5, 5, 7, 1], dtype=np.uint64)
    miniatures = rng.integers(0, 256, (6, 768), dtype=np.uint8)
    miniatures[3] = miniatures[0]
    miniatures[5] = miniatures[1]  # another hash
    assert module._first_of_equals(hashes, miniatures).tolist() == [0, 1, 2, 0, 4, 5]
