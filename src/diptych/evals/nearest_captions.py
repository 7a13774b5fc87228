"""The record whose caption says most nearly the same: what somebody would paint who only copies."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

_CELLS = 1 << 24  # products held at once


class Nearest(NamedTuple):
    """Of each caption: the place of the nearest among the others, how near (1: the same words in the same pairs), and
    whether it is the very same text."""

    place: Int64[np.ndarray, " n"]
    near: Float64[np.ndarray, " n"]
    equal: Bool[np.ndarray, " n"]


def nearest_captions(captions: Sequence[str], others: Sequence[str]) -> Nearest:
    """For each of `captions` the nearest of `others`, the first of equally near ones.

    Near by the cosine of counts of words and of pairs of neighbouring words, each weighted by how few of `others` hold
    it (log of their number over that of those with it); an equal text goes before any.
    """
    mine, theirs = [_counts(c) for c in captions], [_counts(c) for c in others]
    spread = Counter(term for counts in theirs for term in counts)
    columns = {term: n for n, term in enumerate(spread)}
    weight = {term: float(np.log((1 + len(theirs)) / held)) for term, held in spread.items()}
    known = _matrix(theirs, columns, weight)
    first: dict[str, int] = {}
    for n, text in enumerate(others):
        first.setdefault(_plain(text), n)
    place, near = np.empty(len(mine), np.int64), np.empty(len(mine))
    step = max(1, _CELLS // max(1, len(others), len(columns)))
    for start in range(0, len(mine), step):
        part = _matrix(mine[start : start + step], columns, weight).to_dense()
        best, where = torch.sparse.mm(known, part.T).max(0)  # the first of equal ones, on a CPU
        place[start : start + step], near[start : start + step] = where.numpy(), best.numpy()
    equal = np.array([_plain(c) in first for c in captions], dtype=bool)
    place[equal] = [first[_plain(c)] for c, same in zip(captions, equal, strict=True) if same]
    near[equal] = 1.0
    return Nearest(place, near, equal)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _counts(text: str) -> Counter[str]:
    words = _plain(text).split()
    return Counter(words) + Counter(f"{a} {b}" for a, b in pairwise(words))


def _matrix(rows: Sequence[Counter[str]], columns: dict[str, int], weight: dict[str, float]) -> Tensor:
    """A unit row each, sparse; terms that no other holds count for its length alone."""
    found = [(n, columns[t], c * weight[t]) for n, row in enumerate(rows) for t, c in row.items() if t in columns]
    heaviest = max(weight.values(), default=1.0)
    length = [max(1e-9, sum((c * weight.get(t, heaviest)) ** 2 for t, c in row.items()) ** 0.5) for row in rows]
    index = torch.tensor([[n for n, _, _ in found], [k for _, k, _ in found]], dtype=torch.int64).view(2, -1)
    values = torch.tensor([v / length[n] for n, _, v in found], dtype=torch.float64)
    return torch.sparse_coo_tensor(index, values, (len(rows), len(columns)), check_invariants=False).coalesce()
