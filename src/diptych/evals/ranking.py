"""Exact retrieval ranks, counted in one pass over rows of scores: memory O(chunk x N), never N x N.

The rank of a query is 1 + how many wrong gallery items score higher than its best right one + half of those that tie.
Half of the ties is what a fair coin gives on average: a model that answers everything alike lands in the middle, not
on top. Scores that differ by less than TIE (relative) count as tied: in float32, the same two vectors multiplied in
batches of another shape differ by as much, and a collapsed model would else be ranked by rounding.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from diptych.core.errors import EvalError

TIE = 1e-6
_CELLS = 1 << 23  # scores held at once (32 MB)

_GATHERED = 1 << 20  # numbers of vectors that are gathered at once (4 MB)

Rows = Callable[[int, int], Tensor]
"""Scores of images start..stop against all texts, (stop - start, t)."""

Ties = Literal["half", "optimistic", "pessimistic"]
"""How a wrong item that ties with the best right one counts: as half of one, not at all, or as one that is above."""

_OF_A_TIE = {"half": 0.5, "optimistic": 0.0, "pessimistic": 1.0}

Table = Tensor | np.ndarray
"""A vector a row, (n, e): in memory, or an array that is mapped from disk, in float32 or float16."""


@dataclass(frozen=True)
class Matches:
    """Who matches whom: distinct images and distinct texts, and the pairs that belong together.

    Images with equal bytes are one, equal captions are one: no model can tell them apart, so a caption matches *every*
    image that carries an equal caption, and all captions of an image are right for all its copies. Copies still count
    as often as they occur: in the gallery (as wrong answers), among the queries, and for the chance level.

    image_of      which distinct image each image is, (n,)
    text_of       which distinct text each caption is, (c,)
    owner         which image each caption belongs to, (c,)
    first_image   an image of each kind, (i,);  first_text: a caption of each kind, (t,)
    pairs         distinct matching (image, text), ordered by image, (p, 2)
    """

    image_of: Int64[Tensor, " n"]
    text_of: Int64[Tensor, " c"]
    owner: Int64[Tensor, " c"]
    first_image: Int64[Tensor, " i"]
    first_text: Int64[Tensor, " t"]
    pairs: Int64[Tensor, "p 2"]

    @classmethod
    def of(cls, images: Sequence[Hashable], captions: Sequence[Sequence[str]]) -> "Matches":
        """From one content hash an image and its captions."""
        image_of, first_image = _distinct(list(images))
        owner = torch.tensor([i for i, texts in enumerate(captions) for _ in texts], dtype=torch.int64)
        text_of, first_text = _distinct([text for texts in captions for text in texts])
        pairs = torch.unique(torch.stack([image_of[owner], text_of], 1), dim=0)
        return cls(image_of, text_of, owner, first_image, first_text, pairs)

    @property
    def image_copies(self) -> Float64[Tensor, " i"]:
        """How often each distinct image occurs."""
        return torch.bincount(self.image_of, minlength=len(self.first_image)).double()

    @property
    def text_copies(self) -> Float64[Tensor, " t"]:
        """How often each distinct text occurs."""
        return torch.bincount(self.text_of, minlength=len(self.first_text)).double()

    def right_texts(self) -> Float64[Tensor, " i"]:
        """How many captions (copies counted) are right for each distinct image."""
        zero = torch.zeros(len(self.first_image), dtype=torch.float64)
        return zero.index_add(0, self.pairs[:, 0], self.text_copies[self.pairs[:, 1]])

    def right_images(self) -> Float64[Tensor, " t"]:
        """How many images (copies counted) are right for each distinct text."""
        zero = torch.zeros(len(self.first_text), dtype=torch.float64)
        return zero.index_add(0, self.pairs[:, 1], self.image_copies[self.pairs[:, 0]])


@dataclass(frozen=True)
class Ranks:
    """Ranks of the best right answer (1 is best) and its score, for each *distinct* image and text."""

    i2t: Float64[Tensor, " i"]
    t2i: Float64[Tensor, " t"]
    best_of_image: Float[Tensor, " i"]
    best_of_text: Float[Tensor, " t"]


def ranks(rows: Rows, pair_scores: Float[Tensor, " p"], matches: Matches, chunk: int = 0, ties: Ties = "half") -> Ranks:
    """Both directions' ranks from rows of scores of the distinct images, `chunk` at a time (0: what fits in 32 MB).

    `pair_scores` are the scores of `matches.pairs`, needed first, since a text's best image may come in a later chunk.
    """
    num_images, num_texts = len(matches.first_image), len(matches.first_text)
    image, text = (x.contiguous() for x in matches.pairs.unbind(1))
    best_i, best_t = best_right(pair_scores, matches)
    tie = _OF_A_TIE[ties]
    exact = torch.float32 if max(len(matches.image_of), len(matches.text_of)) < 1 << 22 else torch.float64
    text_copies, image_copies = matches.text_copies.to(exact), matches.image_copies.to(exact)
    above_i = torch.zeros(num_images, dtype=torch.float64)
    above_t = torch.zeros(num_texts, dtype=torch.float64)
    chunk = chunk or max(1, min(1024, _CELLS // max(1, num_texts)))
    for start in range(0, num_images, chunk):
        stop = min(start + chunk, num_images)
        scores = rows(start, stop)  # (c, t)
        check_finite(scores)
        a, b = (int(x) for x in torch.searchsorted(image, torch.tensor([start, stop])))
        right = torch.zeros(scores.shape, dtype=torch.bool)
        right[image[a:b] - start, text[a:b]] = True
        above_i[start:stop] = _above(scores, best_i[start:stop, None], right, exact, tie) @ text_copies
        above_t += image_copies[start:stop] @ _above(scores, best_t[None], right, exact, tie)
    return Ranks(1 + above_i, 1 + above_t, best_i, best_t)


def best_right(pair_scores: Float[Tensor, " p"], matches: Matches) -> tuple[Float[Tensor, " i"], Float[Tensor, " t"]]:
    """The score of each distinct image's and each distinct text's best right answer."""
    check_finite(pair_scores)
    lowest, (image, text) = torch.finfo(pair_scores.dtype).min, matches.pairs.unbind(1)
    best_i = pair_scores.new_full((len(matches.first_image),), lowest).scatter_reduce(0, image, pair_scores, "amax")
    best_t = pair_scores.new_full((len(matches.first_text),), lowest).scatter_reduce(0, text, pair_scores, "amax")
    return best_i, best_t


def pair_products(images: Table, texts: Table, matches: Matches) -> Float[Tensor, " p"]:
    """The inner products of the matching pairs, without those of all others."""
    step = max(1, _GATHERED // max(1, images.shape[1]))
    return torch.cat(
        [(rows_of(images, part[:, 0]) * rows_of(texts, part[:, 1])).sum(1) for part in matches.pairs.split(step)]
        or [torch.zeros(0)]
    )


def rows_of(table: Table, which: slice | Tensor) -> Float[Tensor, "n e"]:
    """Some rows of a table as a tensor, those of an array in float32."""
    if isinstance(table, Tensor):
        return table[which]
    rows = np.asarray(table[which if isinstance(which, slice) else which.numpy()], dtype=np.float32)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())


def chance_recall(right: Float64[np.ndarray, " q"], gallery: int, k: int) -> float:
    """The mean chance that `k` of `gallery` items drawn blindly hold one of the `right` ones of each query.

    Hypergeometric: 1 - C(gallery - right, k) / C(gallery, k).
    """
    numbers, times = np.unique(right.astype(int), return_counts=True)
    missed = [_chance_of_miss(int(p), gallery, min(k, gallery))[-1] for p in numbers]
    return float(1 - np.average(missed, weights=times))


def chance_mean_reciprocal_rank(right: Float64[np.ndarray, " q"], gallery: int) -> float:
    """The mean of 1/rank of blind guessing."""
    numbers, times = np.unique(right.astype(int), return_counts=True)
    place = np.arange(1, gallery + 1)
    return float(np.average([(_first_hit(int(p), gallery) / place).sum() for p in numbers], weights=times))


def chance_median_rank(right: Float64[np.ndarray, " q"], gallery: int) -> float:
    """The median rank of blind guessing, over all queries together."""
    numbers, times = np.unique(right.astype(int), return_counts=True)
    reached = np.average(
        [np.cumsum(_first_hit(int(p), gallery)) for p in numbers], weights=times, axis=0
    )  # (gallery,): share of queries with a rank of at most 1, 2, ...
    lower, upper = (reached >= 0.5 - 1e-12).argmax(), (reached > 0.5 + 1e-12).argmax()
    return float(lower + upper) / 2 + 1


def _above(scores: Tensor, best: Tensor, right: Tensor, exact: torch.dtype, tie: float) -> Tensor:
    """1 where a wrong item beats the best right one, `tie` where it ties with it."""
    margin = scores - best
    slack = TIE * best.abs().clamp_min(1.0)
    above = (margin > slack).to(exact).add_((margin.abs() <= slack).to(exact), alpha=tie)
    return above.masked_fill_(right, 0.0)


def _chance_of_miss(right: int, gallery: int, k: int) -> Float64[np.ndarray, " k"]:
    """The chance that none of `right` items is among the first 1, 2, ..., k of a shuffled gallery."""
    place = np.arange(k)
    return np.cumprod(np.clip(gallery - right - place, 0, None) / (gallery - place))


def _first_hit(right: int, gallery: int) -> Float64[np.ndarray, " gallery"]:
    missed = np.concatenate([[1.0], _chance_of_miss(right, gallery, gallery)])
    return missed[:-1] - missed[1:]


def _distinct(items: list[Hashable]) -> tuple[Tensor, Tensor]:
    seen: dict[Hashable, int] = {}
    kind, first = [], []
    for place, item in enumerate(items):
        if item not in seen:
            seen[item] = len(seen)
            first.append(place)
        kind.append(seen[item])
    return torch.tensor(kind, dtype=torch.int64), torch.tensor(first, dtype=torch.int64)


def check_finite(scores: Tensor) -> None:
    """Raise EvalError if a score is NaN or infinite."""
    if not scores.isfinite().all():
        raise EvalError(
            f"scores must be finite; got {int((~scores.isfinite()).sum())} of {scores.numel()} with NaN or infinity. "
            "The weights or the precision are broken: load an earlier checkpoint, or evaluate in float32."
        )
