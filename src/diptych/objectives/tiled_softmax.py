"""Symmetric InfoNCE, value and gradient, in the memory of a few tiles.

Two passes over the tiles of s <image_i, text_j> (this rank's images, all texts). The first one finds the sums of
exponentials of rows and of columns at once, around running maxima (Milakov & Gimelshein 2018, arXiv:1805.02867), so
that nothing overflows and nothing that counts underflows at any scale. With their logarithms r_i and c_j known, the
second one forms the gradient of each tile, exp(l_ij - r_i) + exp(l_ij - c_j) minus the targets, and multiplies it into
the gradients of images and texts. Four matrix products for each tile, three where the logits of the first pass could be
kept or one of the two sides is frozen. Inside, logits are to the base 2, whose exponential is cheaper and as exact.

Across ranks. A rank forms its (b, g) block only, not a second one for its texts: sums over columns are completed by
summing over ranks, and so is the gradient of texts. Everything is scaled as `objectives/contrastive.py` says: the value
is the mean over this rank's own rows and own columns, the gradient of an embedding is W dL/dx, and that of the scale is
this rank's part of W dL/ds. The incoming gradient must be the same number on all ranks, as a mean over ranks has it.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from diptych.core.distributed import all_max, all_sum, world_size
from diptych.objectives.exchange import exchange
from diptych.objectives.tiles import Pairs, Scratch, Tile, Wanted, tiles

Duplicates = Literal["mask", "positives", "ignore"]
"""What to do with two pairs of a batch that share their caption or their image: "mask" takes them out of each other's
negatives, "positives" makes them each other's positives, "ignore" keeps them as negatives."""

LOWEST = -1e30  # below every logit, yet finite: the difference of two of them is a number


class SoftmaxLoss(NamedTuple):
    """Means over this rank's rows and own columns, and the gradient of (i2t + t2i) / 2 as far as it was wanted."""

    i2t: Tensor
    t2i: Tensor
    image: Tensor | None
    text: Tensor | None
    scale: Tensor | None


class _Sums:
    """What the first pass gathers for each row (or column), with logits to the base 2."""

    def __init__(self, n: int, like: Tensor) -> None:
        self.highest = like.new_full((n,), LOWEST)
        # the sum of exponentials around the highest; own logit; the sums of duplicates' and of all candidates' logits
        self.sum, self.own, self.same, self.candidates = like.new_zeros(4, n)

    def add_exponentials(self, part: slice, logits: Tensor, dim: int, room: Tensor) -> None:
        """Take in a tile, summed over its dimension `dim`; `room` is overwritten."""
        before = self.highest[part]
        now = torch.maximum(before, logits.amax(dim))
        torch.sub(logits, now.unsqueeze(dim), out=room)
        self.sum[part] = self.sum[part] * (before - now).exp2_() + room.exp2_().sum(dim)
        self.highest[part] = now

    def over_ranks(self) -> None:
        """Complete the sums of columns, of which every rank has its rows' part."""
        if world_size() == 1:
            return
        highest = all_max(self.highest)
        rest = torch.stack([self.sum * (self.highest - highest).exp2_(), self.own, self.same, self.candidates])
        self.sum, self.own, self.same, self.candidates = all_sum(rest)
        self.highest = highest

    def log(self, part: slice = slice(None)) -> Tensor:
        """The logarithm, to the base 2, of the sum of exponentials."""
        return self.highest[part] + self.sum[part].log2()


class InfoNce:
    """The loss of this rank's images among all texts and of its texts among all images. Used once.

    Label smoothing spreads its share evenly over all candidates; "positives" spreads the target over all duplicates.
    """

    def __init__(self, pairs: Pairs, duplicates: Duplicates, label_smoothing: float) -> None:
        self.pairs = pairs
        self.smoothing = label_smoothing
        self.same = None if duplicates == "ignore" else pairs.same
        self.masks = self.same is not None and duplicates == "mask"
        # so that no pass over a tile is spent on the scale, nor on the base of exponentials
        self.image = (pairs.scale / math.log(2)) * pairs.image
        self.columns = exchange(pairs.text, pairs.exchange)
        b, g = len(pairs.image), pairs.pairs
        self.rows, self.cols = _Sums(b, self.image), _Sums(g, self.image)
        self.mine = slice(pairs.first, pairs.first + b)
        # of each of the g pairs: the share of the target on its own text, and on each candidate
        self.on_own = self.image.new_full((g,), 1 - label_smoothing)
        self.on_each = self.image.new_full((g,), label_smoothing / g)
        if self.same is not None and not self.masks:
            self.on_own /= self.same.counts()
        elif self.same is not None and label_smoothing:
            self.on_each = label_smoothing / (g + 1 - self.same.counts()).to(self.image.dtype)
        self.kept: list[Tensor] = []

    @torch.no_grad()
    def compute(self, wanted: Wanted) -> SoftmaxLoss:
        """The value, and the gradients that are wanted."""
        self._first_pass(keep=wanted.any)
        self.cols.over_ranks()
        i2t = self._cross_entropy(self.rows, slice(None))
        t2i = self._cross_entropy(self.cols, self.mine)
        if not wanted.any:
            return SoftmaxLoss(i2t, t2i, None, None, None)
        return SoftmaxLoss(i2t, t2i, *self._second_pass(wanted))

    def _cross_entropy(self, sums: _Sums, part: slice) -> Tensor:
        target = self.on_own[self.mine] * (sums.own[part] + sums.same[part])
        if self.smoothing:
            target = target + self.on_each[self.mine] * sums.candidates[part]
        return (sums.log(part) - target).mean() * math.log(2)

    def _first_pass(self, keep: bool) -> None:
        b, size, budget = len(self.image), self.pairs.size, self.pairs.size.kept if keep else 0
        logits_room = room = None
        for first, block in self.columns.blocks():
            room = room or Scratch(self.image, size, b, len(block))
            for tile in tiles(b, first, len(block), size):
                out = room(tile)
                budget -= out.numel()
                if budget >= 0:
                    logits = self.image[tile.rows] @ block[tile.inside].T
                    self.kept.append(logits)
                else:
                    logits_room = logits_room or Scratch(self.image, size, b, len(block))
                    logits = torch.mm(self.image[tile.rows], block[tile.inside].T, out=logits_room(tile))
                self._take_in(tile, logits, out)

    def _take_in(self, tile: Tile, logits: Tensor, room: Tensor) -> None:
        same = None if self.same is None else self.same.tile(tile.rows, tile.columns)
        of_row, own = tile.own(logits, self.pairs.first)
        self.rows.own[of_row] = own
        self.cols.own[_shifted(of_row, self.pairs.first)] = own
        if same is not None and not self.masks:
            torch.mul(logits, same, out=room)
            self.rows.same[tile.rows] += room.sum(1)
            self.cols.same[tile.columns] += room.sum(0)
        if self.smoothing:
            candidates = torch.mul(logits, ~same, out=room) if same is not None and self.masks else logits
            self.rows.candidates[tile.rows] += candidates.sum(1)
            self.cols.candidates[tile.columns] += candidates.sum(0)
        if same is not None and self.masks:
            logits.masked_fill_(same, -torch.inf)
        self.rows.add_exponentials(tile.rows, logits, 1, room)
        self.cols.add_exponentials(tile.columns, logits, 0, room)

    def _second_pass(self, wanted: Wanted) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of image, text and scale, wanted ones only."""
        image, b, size = self.image, len(self.image), self.pairs.size
        by_image = torch.zeros_like(image) if wanted.image or not wanted.text else None
        by_scale: Tensor | None = None
        log_rows, log_cols = self.rows.log(), self.cols.log()
        kept, logits_room, room = iter(self.kept), None, None
        blocks = self.columns.blocks_with_gradient() if wanted.text else ((*x, None) for x in self.columns.blocks())
        for first, block, by_text in blocks:
            room = room or Scratch(image, size, b, len(block))
            for tile in tiles(b, first, len(block), size):
                texts = block[tile.inside]
                logits = next(kept, None)
                if logits is None:
                    logits_room = logits_room or Scratch(image, size, b, len(block))
                    logits = torch.mm(image[tile.rows], texts.T, out=logits_room(tile))
                grad = self._gradient(tile, logits, log_rows, log_cols, room(tile))
                if by_image is not None:
                    by_image[tile.rows].addmm_(grad, texts)
                if by_text is not None:
                    by_text[tile.inside].addmm_(grad.T, image[tile.rows], beta=tile.rows.start > 0)
            if by_text is not None:
                by_text *= math.log(2) / (2 * b)  # of which image held the inverse
                if by_image is None:  # sum_ij G_ij s <i, t> by its texts, before they go home
                    part = torch.linalg.vecdot(by_text, block).sum()
                    by_scale = part if by_scale is None else by_scale + part
        if by_image is not None:
            by_image *= self.pairs.scale / (2 * b)
            by_scale = torch.linalg.vecdot(by_image, self.pairs.image).sum()
        assert by_scale is not None  # there is a block
        return (
            by_image if wanted.image else None,
            self.columns.gradient if wanted.text else None,
            by_scale / self.pairs.scale,
        )

    def _gradient(self, tile: Tile, logits: Tensor, log_rows: Tensor, log_cols: Tensor, room: Tensor) -> Tensor:
        """2 b times the gradient of the loss by the tile's logits, in the place of `room`. Overwrites `logits`."""
        same = None if self.same is None else self.same.tile(tile.rows, tile.columns)
        torch.sub(logits, log_rows[tile.rows, None], out=room).exp2_()
        room += logits.sub_(log_cols[tile.columns]).exp2_()
        theirs = _shifted(tile.rows, self.pairs.first)
        if self.smoothing:
            room -= torch.add(self.on_each[theirs, None], self.on_each[tile.columns], out=logits)
        if same is not None and self.masks:
            room.masked_fill_(same, 0.0)
        elif same is not None:
            torch.add(self.on_own[theirs, None], self.on_own[tile.columns], out=logits)
            room -= logits.mul_(same)
        of_row, own = tile.own(room, self.pairs.first)
        own -= 2 * self.on_own[_shifted(of_row, self.pairs.first)]
        return room


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)
