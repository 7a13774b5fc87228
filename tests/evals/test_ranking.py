import itertools

import numpy as np
import pytest
import torch

from diptych.core.errors import EvalError
from diptych.evals import ranking
from diptych.evals.ranking import Matches
from diptych.evals.scoring import EmbeddedItems
from tests.reference import retrieval_ranks


def _ranked(images: torch.Tensor, texts: torch.Tensor, matches: Matches, chunk: int = 0) -> ranking.Ranks:
    items = EmbeddedItems(images, texts)
    return ranking.ranks(items.rows, items.pairs(matches), matches, chunk)


@pytest.mark.parametrize("chunk", [0, 1, 3, 100])
@pytest.mark.parametrize("seed", range(4))
def test_chunked_is_dense_with_copies_ties_and_many_captions(seed, chunk):
    g = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    hashes = [f"image {rng.integers(14)}" for _ in range(17)]  # some images are copies
    captions = [[f"text {rng.integers(25)}" for _ in range(rng.integers(1, 4))] for _ in hashes]
    matches = Matches.of(hashes, captions)
    images = torch.randint(-2, 3, (len(matches.first_image), 4), generator=g).float()  # whole numbers: exact, many ties
    texts = torch.randint(-2, 3, (len(matches.first_text), 4), generator=g).float()
    dense = (images[matches.image_of] @ texts[matches.text_of].T).numpy()
    i2t, t2i = retrieval_ranks.ranks(dense, hashes, captions)
    found = _ranked(images, texts, matches, chunk)
    assert found.i2t[matches.image_of].tolist() == i2t
    assert found.t2i[matches.text_of].tolist() == t2i


def test_matches_know_copies():
    matches = Matches.of(["a", "b", "a"], [["x", "y"], ["x"], ["z"]])
    assert matches.image_of.tolist() == [0, 1, 0]
    assert matches.text_of.tolist() == [0, 1, 0, 2]
    assert matches.owner.tolist() == [0, 0, 1, 2]
    assert matches.pairs.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0]]
    assert matches.right_texts().tolist() == [4, 2]  # "x" occurs twice
    assert matches.right_images().tolist() == [3, 2, 2]


def test_a_collapsed_model_lands_in_the_middle():
    matches = Matches.of(list(range(101)), [[str(i)] for i in range(101)])
    same = torch.full((101, 48), 48**-0.5)
    found = _ranked(same, same, matches, chunk=7)
    assert found.i2t.unique().tolist() == [51]
    assert found.t2i.unique().tolist() == [51]


def test_not_a_number_is_an_error():
    matches = Matches.of([0, 1], [["a"], ["b"]])
    good, bad = torch.eye(2), torch.tensor([[1.0, 0], [float("nan"), 0]])
    for images, texts in ((good, bad), (bad, good)):
        with pytest.raises(EvalError, match="embeddings must be finite; got 1 of 2"):
            _ranked(images, texts, matches)
    with pytest.raises(EvalError, match="scores must be finite; got 1 of 2"):
        ranking.ranks(lambda a, b: bad[a:b], torch.ones(2), matches, 1)


@pytest.mark.parametrize("gallery,right", [(5, 1), (6, 1), (6, 2), (7, 3)])
def test_chance_is_that_of_every_order(gallery, right):
    orders = list(itertools.combinations(range(1, gallery + 1), right))  # places of the right ones, all equally likely
    first = np.array([o[0] for o in orders])
    of = np.array([float(right)])
    for k in (1, 3, 10):
        assert ranking.chance_recall(of, gallery, k) == pytest.approx((first <= k).mean())
    assert ranking.chance_mean_reciprocal_rank(of, gallery) == pytest.approx((1 / first).mean())
    assert ranking.chance_median_rank(of, gallery) == np.median(first)


def test_chance_over_mixed_queries_is_their_mean():
    both = np.array([1.0, 1.0, 4.0])
    assert ranking.chance_recall(both, 10, 1) == pytest.approx((0.1 + 0.1 + 0.4) / 3)


def test_memory_stays_in_chunks():
    seen = []
    images, texts = torch.randn(40, 4), torch.randn(40, 4)
    matches = Matches.of(list(range(40)), [[str(i)] for i in range(40)])

    def rows(start: int, stop: int) -> torch.Tensor:
        seen.append(stop - start)
        return images[start:stop] @ texts.T

    ranking.ranks(rows, (images * texts).sum(1), matches, 16)
    assert seen == [16, 16, 8]  # one pass serves both directions
