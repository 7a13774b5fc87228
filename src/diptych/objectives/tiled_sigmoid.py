"""The sigmoid loss of SigLIP, value and gradient, in the memory of a few tiles.

No term depends on another, so one pass over the tiles of s <image_i, text_j> + b gives everything: three matrix
products a tile (one for the logits, two for the gradients), fewer where a side is frozen. Across ranks a rank forms its
(b, g) block, and the gradient of texts is summed over ranks; scaled as `objectives/contrastive.py` says.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.exchange import exchange
from diptych.objectives.tiled_softmax import Duplicates
from diptych.objectives.tiles import Pairs, Scratch, Tile, Wanted, tiles


class SigmoidLoss(NamedTuple):
    """Sums over all texts, means over this rank's images; and the gradient of their sum as far as it was wanted."""

    positive: Tensor
    negative: Tensor
    image: Tensor | None
    text: Tensor | None
    scale: Tensor | None
    bias: Tensor | None


class SigmoidPairs:
    """The yes-or-no questions of this rank's images about all texts. Used once."""

    def __init__(self, pairs: Pairs, duplicates: Duplicates) -> None:
        self.pairs = pairs
        self.same = None if duplicates == "ignore" else pairs.same
        self.masks = duplicates == "mask"
        self.image = pairs.scale * pairs.image  # so that no pass over a tile is spent on the scale
        self.bias = pairs.scale.new_zeros(()) if pairs.bias is None else pairs.bias
        # in double precision where the device has it: there are g^2 terms
        wide = torch.float64 if self.image.device.type in ("cpu", "cuda") else self.image.dtype
        self.all_terms, self.true_terms, self.by_bias = torch.zeros(3, dtype=wide, device=self.image.device)

    @torch.no_grad()
    def compute(self, wanted: Wanted) -> SigmoidLoss:
        """The value, and the gradients that are wanted."""
        image, b, size = self.image, len(self.image), self.pairs.size
        by_image = torch.zeros_like(image) if wanted.image or (wanted.numbers and not wanted.text) else None
        by_scale = image.new_zeros(())
        columns = exchange(self.pairs.text, self.pairs.exchange)
        blocks = columns.blocks_with_gradient() if wanted.text else ((*x, None) for x in columns.blocks())
        room = None
        for first, block, by_text in blocks:
            room = room or Scratch(image, size, b, len(block))
            for tile in tiles(b, first, len(block), size):
                texts = block[tile.inside]
                logits = torch.mm(image[tile.rows], texts.T, out=room(tile)).add_(self.bias)
                grad = self._gradient(tile, logits)
                if by_image is not None:
                    by_image[tile.rows].addmm_(grad, texts)
                if by_text is not None:
                    by_text[tile.inside].addmm_(grad.T, image[tile.rows], beta=tile.rows.start > 0)
            if by_text is not None:
                by_text *= 1 / b
                if by_image is None:  # sum_ij G_ij s <i, t> by its texts, before they go home
                    by_scale = by_scale + torch.linalg.vecdot(by_text, block).sum()
        if by_image is not None:
            by_image *= self.pairs.scale / b
            by_scale = torch.linalg.vecdot(by_image, self.pairs.image).sum()
        return SigmoidLoss(
            (self.true_terms / b).to(image.dtype),
            ((self.all_terms - self.true_terms) / b).to(image.dtype),
            by_image if wanted.image else None,
            columns.gradient if wanted.text else None,
            by_scale / self.pairs.scale if wanted.any else None,
            (self.by_bias / b).to(image.dtype) if wanted.any else None,
        )

    def _gradient(self, tile: Tile, logits: Tensor) -> Tensor:
        """Adds the terms of a tile to the sums, and puts b times their gradient in the place of the logits."""
        same = None if self.same is None else self.same.tile(tile.rows, tile.columns)
        _, own = tile.own(logits, self.pairs.first)
        own.neg_()  # z x with the sign turned, so that each term is softplus of what stands there
        if same is not None and not self.masks:
            torch.where(same, -logits, logits, out=logits)
        terms = F.softplus(logits)  # neither overflows nor loses its tail
        slope = logits.sigmoid_()
        if same is not None and self.masks:
            terms.masked_fill_(same, 0.0)
            slope.masked_fill_(same, 0.0)
        self.true_terms += tile.own(terms, self.pairs.first)[1].sum()
        if same is not None and not self.masks:
            self.true_terms += (terms * same).sum()
            torch.where(same, -slope, slope, out=slope)
        self.all_terms += terms.sum()
        own.neg_()  # the same place of the same memory
        self.by_bias += slope.sum()
        return slope
