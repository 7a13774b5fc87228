"""Images beside rows of text: which of them a row may look at, and which one each of its tokens sees.

Here no image's token stands in a row: text alone is spliced (`nn/splice.py`, with images of no tokens), and looks aside
at the images of its records. All places follow from lengths and positions alone, on the host.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.nn.mask import IMAGE, PADDING, Layout, MaskPlan, media_causal
from diptych.nn.packing import ascending, send
from diptych.nn.splice import Splice


@dataclass(frozen=True)
class Media:
    """The images beside r rows of l text tokens, k at most. Tensors lie on the device asked for.

    index   which image stands at each place beside a row; 0 for filling
    query   of each text token: its record (as segment), and how many of its record's images it has behind it (as
            position)
    key     of each image: the same, counting itself, so that of several at one place the last one is seen
    """

    index: Int64[Tensor, "r k"]
    query: Layout
    key: Layout

    def take(self, images: Float[Tensor, "i p c"]) -> Float[Tensor, "r s c"]:
        """The images' tokens beside each row."""
        rows = images.index_select(0, self.index.flatten())
        return rows.unflatten(0, self.index.shape).flatten(1, 2)

    def mask(self, tokens: int) -> MaskPlan:
        """Each text token sees the `tokens` tokens of its last image; what stands before any image sees nothing."""
        plan = media_causal().plan(self.query, self.key)
        assert plan is not None
        assert plan.allowed is not None
        return replace(plan, allowed=plan.allowed.repeat_interleave(tokens, dim=-1))


def media(
    text: Splice,
    image_record: Int64[Tensor, " i"],
    image_position: Int64[Tensor, " i"] | None,
    device: torch.device,
    ahead: int = 0,
) -> Media:
    """What rows of `text`, spliced on the host with these images' places, may look at. `ahead`: how many tokens before
    an image's place see it already."""
    owners = image_record.numpy()
    positions = np.zeros(len(owners), np.int64) if image_position is None else image_position.numpy()
    records, length = len(text.sizes), text.layout.length
    segment, place = text.layout.segments().numpy(), text.layout.positions().numpy()
    rows = len(segment)
    real = (segment != PADDING) & (segment < records)
    owner = np.broadcast_to(np.arange(rows)[:, None], segment.shape) if text.padded else segment
    row = np.arange(records) if text.padded else text.last.numpy() // length
    # of each text token: its record's images at or before its place
    most = (int(text.sizes.max()) if records else 0) + 2 + ahead
    keys = owners * most + positions  # ascending
    upto = np.searchsorted(keys, (owner * most + place + ahead).ravel(), side="right").reshape(segment.shape)
    first = np.searchsorted(owners, np.arange(records + 1))
    seen = np.where(real, upto - first[np.where(real, owner, 0)], 0)
    # of each image: which of its row's it is
    beside = row[owners]
    counts = np.bincount(beside, minlength=rows)
    order = np.argsort(beside, kind="stable")
    slots = (beside[order], ascending(counts))
    index = np.zeros((rows, max(int(counts.max(initial=1)), 1)), np.int64)
    theirs, number = np.full(index.shape, PADDING), np.zeros(index.shape, np.int64)
    index[slots] = order
    theirs[slots] = 0 if text.padded else owners[order]
    number[slots] = (np.arange(len(owners)) - first[owners] + 1)[order]
    host = [index, segment, seen, theirs, number]
    at, mine, seen_, theirs_, number_ = (t.view(rows, -1) for t in send([a.ravel() for a in host], device))
    query = Layout(length, mine, None, seen_, device)
    return Media(at, query, Layout(index.shape[1], theirs_, torch.full_like(theirs_, IMAGE), number_, device))
