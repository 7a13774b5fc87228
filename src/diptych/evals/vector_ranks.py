"""Exact retrieval ranks from two tables of vectors, tile by tile: memory for the tables (or none of it, where they are
mapped from disk), for a tile of scores a thread, and for the counts.

The same numbers as `ranking.ranks`. A tile is small enough to stay in a core's cache, where it is compared both ways:
an image's texts and a text's images come out of one product. What is compared are the scores themselves, with the least
float that is a tie and the least that is above: each is one comparison, and says exactly what the subtraction in
`ranking` says. The outcomes are bytes of 0, 1 or 2 half ranks, and eight of them are added up at once, as one integer.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, UInt8
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.data.workers import one_thread
from diptych.evals.ranking import TIE, Matches, Ranks, Table, Ties, best_right, pair_products, rows_of

ROWS, COLUMNS = 512, 1024
"""A tile of scores: 2 MB."""

_LANE = 64
"""So many bytes of at most 2 are added up in a byte, which holds 255."""

_CHECKED = 1 << 16  # rows that are looked at together


class Thresholds(NamedTuple):
    """The least score that counts half against the best right one (a tie), and the least that counts whole."""

    half: Float32[np.ndarray, " n"]
    whole: Float32[np.ndarray, " n"]

    @classmethod
    def of(cls, best: Float32[np.ndarray, " n"], ties: Ties = "half") -> "Thresholds":
        """Such that `score >= half` and `score >= whole` say what `ranking` says of score - best in float32."""
        slack = TIE * np.maximum(np.abs(best), np.float32(1))
        tie, above = _least(best, slack, -slack, False), _least(best, slack, slack, True)
        return {"half": cls(tie, above), "optimistic": cls(above, above), "pessimistic": cls(tie, tie)}[ties]


def vector_ranks(
    images: Table,
    texts: Table,
    matches: Matches,
    ties: Ties = "half",
    told: Callable[[int], None] = lambda done: None,
) -> Ranks:
    """Both directions' ranks of the distinct images and texts whose vectors are the rows of two tables, in float32.

    As many threads as torch has are used, each for itself. `told` is called after each block of images with their
    number, from whichever thread. Raises EvalError where a vector is not finite.
    """
    _check("image", images)
    _check("text", texts)
    best_i, best_t = best_right(pair_products(images, texts, matches), matches)
    work = _Work(images, texts, matches, Thresholds.of(best_i.numpy(), ties), Thresholds.of(best_t.numpy(), ties))
    with one_thread() as threads, ThreadPoolExecutor(threads) as pool:
        starts = iter(range(0, len(best_i), ROWS))
        columns = list(pool.map(lambda _: work.count(starts, told), range(threads)))
    return Ranks(
        1 + torch.from_numpy(work.above_i) / 2, 1 + torch.from_numpy(np.sum(columns, axis=0)) / 2, best_i, best_t
    )


class _Work:
    """What the threads share, and the counts of half ranks of images, each of which belongs to one thread."""

    def __init__(
        self, images: Table, texts: Table, matches: Matches, of_image: Thresholds, of_text: Thresholds
    ) -> None:
        self.images, self.texts, self.of_image, self.of_text = images, texts, of_image, of_text
        self.image, self.text = (x.contiguous().numpy() for x in matches.pairs.unbind(1))
        exact = torch.float32 if max(len(matches.image_of), len(matches.text_of)) < 1 << 22 else torch.float64
        self.image_copies, self.text_copies = matches.image_copies.to(exact), matches.text_copies.to(exact)
        self.above_i = np.zeros(len(of_image.half))

    def count(self, starts: Iterator[int], told: Callable[[int], None]) -> Float64[np.ndarray, " t"]:
        """Take blocks of images as long as there are any; the half ranks that they bring to each text."""
        above_t, tile = np.zeros(len(self.text_copies)), _Tile()
        for start in starts:
            self._block(start, tile, above_t)
            told(min(ROWS, len(self.above_i) - start))
        return above_t

    def _block(self, start: int, tile: "_Tile", above_t: Float64[np.ndarray, " t"]) -> None:
        mine = slice(start, min(start + ROWS, len(self.above_i)))
        rows = rows_of(self.images, mine)
        low, high = (x[mine, None] for x in self.of_image)
        first, last = np.searchsorted(self.image, (mine.start, mine.stop))
        order = first + np.argsort(self.text[first:last], kind="stable")
        columns = np.arange(0, len(above_t), COLUMNS)
        cuts = np.searchsorted(self.text[order], np.append(columns, len(above_t))).tolist()
        for n, left in enumerate(columns.tolist()):
            part = slice(left, min(left + COLUMNS, len(above_t)))
            pairs = order[cuts[n] : cuts[n + 1]]
            right = (self.image[pairs] - start, self.text[pairs] - left)
            tile.score(rows, rows_of(self.texts, part))
            tile.compare(low, high, right)
            self.above_i[mine] += tile.along_rows(self.text_copies[part])
            tile.compare(self.of_text.half[None, part], self.of_text.whole[None, part], right)
            above_t[part] += tile.along_columns(self.image_copies[mine])


class _Tile:
    """The scores of some images against some texts, and how many half ranks each is above a threshold."""

    def __init__(self) -> None:
        self.scores = torch.zeros(ROWS, COLUMNS)
        self.ties, self.halves = np.zeros((ROWS, COLUMNS), bool), np.zeros((ROWS, COLUMNS), np.uint8)
        self.shape = (ROWS, COLUMNS)

    def score(self, rows: Float[Tensor, "r e"], columns: Float[Tensor, "c e"]) -> None:
        """Fill in the products."""
        self.shape = (len(rows), len(columns))
        torch.mm(rows, columns.T, out=self.scores[: len(rows), : len(columns)])

    def compare(
        self, low: np.ndarray, high: np.ndarray, right: tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]
    ) -> None:
        """2 where a wrong item is above, 1 where it ties, else 0; `low` and `high` are (r, 1) or (1, c)."""
        r, c = self.shape
        scores, halves = self.scores.numpy()[:r, :c], self.halves
        np.greater_equal(scores, low, out=self.ties[:r, :c])
        np.greater_equal(scores, high, out=halves.view(bool)[:r, :c])
        np.add(halves, self.ties.view(np.uint8), out=halves)
        if r < ROWS:
            halves[r:] = 0
        if c < COLUMNS:
            halves[:, c:] = 0
        halves[right] = 0

    def along_rows(self, copies: Float[Tensor, " c"]) -> np.ndarray:
        """The half ranks in each row, a column counting as often as it has copies."""
        if bool((copies != 1).any()):
            return (self._plain().to(copies.dtype) @ copies).numpy()
        eights = self.halves.view(np.int64).reshape(ROWS, -1, _LANE)
        return _bytes(eights.sum(2)).sum(1, dtype=np.int64)[: self.shape[0]]

    def along_columns(self, copies: Float[Tensor, " r"]) -> np.ndarray:
        """The half ranks in each column, a row counting as often as it has copies."""
        if bool((copies != 1).any()):
            return (copies @ self._plain().to(copies.dtype)).numpy()
        eights = self.halves.view(np.int64).reshape(-1, _LANE, COLUMNS // 8)
        return _bytes(eights.sum(1)).sum(0, dtype=np.int64)[: self.shape[1]]

    def _plain(self) -> Tensor:
        return torch.from_numpy(self.halves)[: self.shape[0], : self.shape[1]]


def _bytes(eights: Int[np.ndarray, "n m"]) -> UInt8[np.ndarray, "n k"]:
    return np.ascontiguousarray(eights).view(np.uint8)


def _least(
    best: Float32[np.ndarray, " n"], slack: Float32[np.ndarray, " n"], bound: Float32[np.ndarray, " n"], strict: bool
) -> Float32[np.ndarray, " n"]:
    """The least float32 s with s - best >= bound (> bound if `strict`) as float32 computes it, by bisection.

    Rounding never turns an order round, so that all floats from there on will do. Floats are halved as whole numbers
    that stand in the same order.
    """
    with np.errstate(over="ignore"):  # beside the lowest float, which stands for no right answer, there is infinity
        fails, holds = (_ordered(best + k * slack) for k in (np.float32(-4), np.float32(4)))
    while True:
        middle = fails + (holds - fails) // 2
        if (middle == fails).all():
            return _float(holds)
        difference = _float(middle) - best
        enough = difference > bound if strict else difference >= bound
        holds, fails = np.where(enough, middle, holds), np.where(enough, fails, middle)


def _ordered(values: Float32[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    bits = values.view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)


def _float(ordered: Int[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    bits = ordered.astype(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


def _check(name: str, table: Table) -> None:
    """Raise EvalError where a vector, or its squared norm, is not finite: no product of others is infinite."""
    bad = 0
    for start in range(0, len(table), _CHECKED):
        bad += int((~rows_of(table, slice(start, start + _CHECKED)).norm(dim=1).isfinite()).sum())
    if bad:
        raise EvalError(
            f"{name} embeddings must be finite; got {bad} of {len(table)} with NaN or infinity. "
            "The weights or the precision are broken: load an earlier checkpoint, or evaluate in float32."
        )
