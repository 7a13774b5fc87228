import itertools

import numpy as np
import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR

from diptych.evals.graded import Graded, chance_map_at_r, grade
from tests.reference import map_at_r


@pytest.mark.parametrize("seed", range(12))
def test_map_at_r_is_the_mean_over_all_orders_of_what_ties(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, 6).astype(np.float32)
    right = rng.permutation([True] * (1 + seed % 3) + [False] * (5 - seed % 3))
    found = grade(scores[None], right[None], np.zeros((1, 6), bool), "half")
    assert found.map_at_r[0] == pytest.approx(map_at_r.graded(scores.tolist(), right.tolist())[1])


def test_rank_takes_ties_by_name():
    scores = np.array([[3, 2, 2, 2, 2, 1]], np.float32)
    right = np.array([[False, True, True, False, False, False]])
    ranks = {t: grade(scores, right, np.zeros_like(right), t).rank[0] for t in ("optimistic", "half", "pessimistic")}
    assert ranks == {"optimistic": 2, "half": 3, "pessimistic": 4}


def test_what_is_left_out_is_neither_right_nor_wrong():
    scores = np.array([[9, 5, 4, 3]], np.float32)
    right, out = np.array([[False, False, True, False]]), np.array([[True, False, False, False]])
    found = grade(scores, right, out, "half")
    assert (found.rank[0], found.right[0], found.gallery[0], found.map_at_r[0]) == (2, 1, 3, 0)
    none = grade(scores, np.zeros_like(right), out, "half")
    assert (none.rank[0], none.right[0], none.map_at_r[0]) == (0, 0, 0)
    assert Graded.joined([found, none]).of(np.array([1])).rank.tolist() == [0]


@pytest.mark.parametrize("gallery,right", [(5, 1), (6, 2), (7, 3)])
def test_chance_is_the_mean_over_every_order(gallery, right):
    values = []
    for places in itertools.combinations(range(1, gallery + 1), right):
        values.append(sum((n + 1) / p for n, p in enumerate(places) if p <= right) / right)
    assert chance_map_at_r(np.array([float(right)]), gallery) == pytest.approx(np.mean(values))


def test_without_ties_torchmetrics_says_the_same():
    rng = np.random.default_rng(0)
    scores = rng.permutation(40 * 30).reshape(40, 30).astype(np.float32)
    right = rng.random((40, 30)) < 0.1
    right[:, 0] |= ~right.any(1)
    found = grade(scores, right, np.zeros_like(right), "half")
    queries = torch.arange(40)[:, None].expand(40, 30).reshape(-1)
    given = (torch.from_numpy(scores).reshape(-1) / 1200, torch.from_numpy(right).reshape(-1), queries)
    assert np.float32((1 / found.rank).mean()) == pytest.approx(float(RetrievalMRR()(*given)), abs=1e-7)
    for k in (1, 5, 10):
        assert np.float32((found.rank <= k).mean()) == float(RetrievalHitRate(top_k=k)(*given))
