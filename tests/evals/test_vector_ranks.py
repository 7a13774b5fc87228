import numpy as np
import pytest
import torch

from diptych.core.errors import EvalError
from diptych.evals import ranking, vector_ranks
from diptych.evals.ranking import TIE, Matches
from diptych.evals.scoring import EmbeddedItems
from tests.reference import retrieval_ranks

TIES = ("half", "optimistic", "pessimistic")


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(vector_ranks, "ROWS", 64)
    monkeypatch.setattr(vector_ranks, "COLUMNS", 512)


def _matches(n, copies, seed=0):
    rng = np.random.default_rng(seed)
    hashes = [f"image {rng.integers(n)}" if copies else f"image {i}" for i in range(n)]
    captions = [[f"text {rng.integers(n)}" if copies else f"text {i} {c}" for c in range(1 + i % 3)] for i in range(n)]
    return hashes, captions, Matches.of(hashes, captions)


def _whole(matches, width=4, seed=0):
    """Vectors of small whole numbers: products are exact, and many tie."""
    g = torch.Generator().manual_seed(seed)
    sizes = (len(matches.first_image), len(matches.first_text))
    return [torch.randint(-2, 3, (size, width), generator=g).float() for size in sizes]


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("copies", [False, True])
def test_tiles_say_what_the_whole_matrix_says(small_tiles, copies, ties):
    hashes, captions, matches = _matches(90, copies)
    images, texts = _whole(matches)
    found = vector_ranks.vector_ranks(images, texts, matches, ties)
    dense = (images[matches.image_of] @ texts[matches.text_of].T).numpy()
    i2t, t2i = retrieval_ranks.ranks(dense, hashes, captions, ties=ties)
    assert found.i2t[matches.image_of].tolist() == i2t
    assert found.t2i[matches.text_of].tolist() == t2i


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("n,copies", [(64, False), (700, False), (700, True)])
def test_tiles_say_what_rows_say(small_tiles, n, copies, ties):
    matches = _matches(n, copies)[2]
    images, texts = _whole(matches)
    items = EmbeddedItems(images, texts)
    rows = ranking.ranks(items.rows, items.pairs(matches), matches, 0, ties)
    found = vector_ranks.vector_ranks(images, texts, matches, ties)
    for name in ("i2t", "t2i", "best_of_image", "best_of_text"):
        assert torch.equal(getattr(rows, name), getattr(found, name)), name


def test_threads_share_the_work(small_tiles):
    matches = _matches(300, False)[2]
    images, texts = _whole(matches)
    alone = vector_ranks.vector_ranks(images, texts, matches)
    told, threads = [], torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        together = vector_ranks.vector_ranks(images, texts, matches, told=told.append)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone.i2t, together.i2t)
    assert torch.equal(alone.t2i, together.t2i)
    assert sorted(told, reverse=True) == [64, 64, 64, 64, 44]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tables_are_read_from_disk(tmp_path, dtype):
    matches = _matches(100, False)[2]
    images, texts = _whole(matches)
    mapped = []
    for name, table in (("images", images), ("texts", texts)):
        np.save(tmp_path / f"{name}.npy", table.numpy().astype(dtype))
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    found, held = vector_ranks.vector_ranks(*mapped, matches), vector_ranks.vector_ranks(images, texts, matches)
    assert torch.equal(found.i2t, held.i2t)
    assert torch.equal(found.t2i, held.t2i)


def test_a_threshold_says_what_the_subtraction_says_to_the_last_bit():
    lowest = torch.finfo(torch.float32).min
    given = [0, 1e-6, -1e-6, 1e-6 + 1e-12, 1e-9, -1e-9, 1, -1, 1 + 1.2e-7, 0.999, 1e6, -1e6, lowest]
    best = torch.cat([torch.randn(2000, generator=torch.Generator().manual_seed(0)), torch.tensor(given)])
    slack = TIE * best.abs().clamp_min(1.0)
    thresholds = vector_ranks.Thresholds.of(best.numpy())
    for least, counts in ((thresholds.half, lambda m: m >= -slack), (thresholds.whole, lambda m: m > slack)):
        at = torch.from_numpy(least)
        assert counts(at - best).all()
        assert not counts(torch.nextafter(at, torch.tensor(-torch.inf)) - best).any()


def test_what_is_not_finite_is_an_error():
    matches = Matches.of([0, 1], [["a"], ["b"]])
    bad = torch.tensor([[1.0, 0], [float("nan"), 0]])
    with pytest.raises(EvalError, match="text embeddings must be finite; got 1 of 2"):
        vector_ranks.vector_ranks(torch.eye(2), bad, matches)
    with pytest.raises(EvalError, match="image embeddings must be finite; got 2 of 2"):  # their products would not be
        vector_ranks.vector_ranks(1e30 * torch.eye(2), 1e30 * torch.eye(2), matches)
