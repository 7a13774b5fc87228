"""Image-text matching with hard negatives (Li et al., 2021, arXiv:2107.07651, section 3.2; ALBEF, BLIP, MaskVLM).

Each pair is a match. Each text is set beside the image of another pair, and each image beside the text of another, both
drawn with a chance that grows with their similarity: three rows a pair, a model that knows nothing having the loss
`CHANCE`. Across ranks the negatives come from all pairs.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from diptych.core.distributed import gather, gather_with_grad, rank
from diptych.models.model import Model
from diptych.objectives.sides import share_of_mean

FLOOR = 1e-4
"""What LAVIS adds to each probability from which a negative is drawn, so that no pair is out of reach."""
CHANCE = math.log(3) - 2 / 3 * math.log(2)
"""The entropy of one match in three."""


class Judged(NamedTuple):
    """What is judged: 3 b rows, this rank's pairs, its texts with wrong images, its images with wrong texts.

    image, text  numbers of what stands in each row, among all ranks' pairs
    counts       1; 0 where there was no wrong one to draw
    """

    image: Int64[Tensor, " n"]
    text: Int64[Tensor, " n"]
    counts: Float[Tensor, " n"]

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """1 for a match, else 0."""
        return (torch.arange(len(self.image), device=self.image.device) < len(self.image) // 3).long()


@torch.no_grad()
def hard_negatives(
    i2t: Float[Tensor, "b g"],
    t2i: Float[Tensor, "b g"],
    same: Bool[Tensor, "b g"] | None,
    draw: Float[Tensor, "b 2"],
) -> Judged:
    """What to judge, from this rank's similarities (times the scale) of its images and its texts with all others.

    `same`: which pairs share a caption or an image, which are no negatives. `draw`: two numbers in 0..1 a pair, which
    decide its wrong image and its wrong text. b pairs are this rank's, the b from rank() * b on of all g.
    """
    b = len(i2t)
    own = rank() * b + torch.arange(b, device=i2t.device)
    barred = torch.eye(b, i2t.shape[1], dtype=torch.bool, device=i2t.device).roll(rank() * b, 1)
    barred = barred if same is None else barred | same
    wrong_image, has_image = draw_negatives(t2i, barred, draw[:, 0])
    wrong_text, has_text = draw_negatives(i2t, barred, draw[:, 1])
    counts = torch.cat([torch.ones_like(has_image), has_image, has_text])
    return Judged(torch.cat([own, wrong_image, own]), torch.cat([own, own, wrong_text]), counts)


@torch.no_grad()
def draw_negatives(
    logits: Float[Tensor, "b g"], barred: Bool[Tensor, "b g"], draw: Float[Tensor, " b"]
) -> tuple[Int64[Tensor, " b"], Float[Tensor, " b"]]:
    """For each row one column that is not barred, with a chance of softmax(logits) + FLOOR, the one in which `draw`
    (0..1) falls; and 1 where there is one, else 0."""
    weights = (logits.softmax(1).double() + FLOOR).masked_fill(barred, 0)
    upto = weights.cumsum(1)
    chosen = torch.searchsorted(upto, draw.double()[:, None] * upto[:, -1:], right=True)[:, 0]
    return chosen.clamp(max=logits.shape[1] - 1), (~barred).any(1).float()


def as_read(rows: Shaped[Tensor, "b *r"], model: Model) -> Shaped[Tensor, "b *r"]:
    """Rows as `model` reads them now: those encoded in bfloat16 and judged outside of it, as in validation, in its own
    precision."""
    exact = not rows.is_floating_point() or torch.is_autocast_enabled(rows.device.type)
    return rows if exact else rows.to(model.pixel_mean.dtype)


def chosen_rows(rows: Shaped[Tensor, "b *r"], chosen: Int64[Tensor, " n"], model: Model) -> Shaped[Tensor, "n *r"]:
    """Those of all ranks' rows that are `chosen`, by numbers as in `Judged`, as `model` reads them; with gradient where
    they have."""
    rows = as_read(rows, model)
    return (gather_with_grad(rows) if rows.requires_grad else gather(rows))[chosen]


def chosen_texts(
    rows: Shaped[Tensor, "b t *r"], lengths: Int64[Tensor, " b"], chosen: Int64[Tensor, " n"], model: Model
) -> tuple[Shaped[Tensor, "n k *r"], Int64[Tensor, " n"]]:
    """`chosen_rows` of texts' tokens or states, and these texts' lengths; cut to the longest on the CPU (elsewhere to
    know it would be to wait)."""
    found, sizes = chosen_rows(rows, chosen, model), gather(lengths)[chosen]
    if sizes.device.type == "cpu":
        found = found[:, : max(int(sizes.max()), 1)]
    return found, sizes


def matching_loss(logits: Float[Tensor, "n 2"], judged: Judged) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(the loss, the share judged right): means over all ranks' rows that count, as this rank's part of a mean over
    ranks. `logits` are of "no match" and "match"."""
    share = judged.counts * share_of_mean(judged.counts)
    logits, labels = logits.float(), judged.labels
    right = (logits.argmax(1) == labels).float()
    return (F.cross_entropy(logits, labels, reduction="none") * share).sum(), (right * share).sum()
