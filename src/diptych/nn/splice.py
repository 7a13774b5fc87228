"""Rows of text with images' tokens spliced in where the images stand, back to back instead of padded.

All places follow from lengths and positions alone, on the host, so that shapes are known without waiting for a device.
Three forms, all exactly the same function:

- rows: records fill rows of one length as well as they fit, under a block-diagonal mask (`nn/packing.py`);
- flat: one row with every token, for a kernel that knows records by their bounds (CUDA, causal);
- padded: a row a record. The plain twin, what decoding needs, and what is taken where packing gains nothing.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diptych.core.errors import DataError
from diptych.nn.mask import IMAGE, PADDING, TEXT, Layout, MaskPlan, Runs, block_diagonal, causal, padding, prefix
from diptych.nn.packing import ascending, host_lengths, packed_rows, round_up, send

Form = Literal["rows", "flat", "padded"]
Seen = Literal["causal", "prefix"]


@dataclass(frozen=True)
class Splice:
    """Where the tokens of b records stand in r rows of l places. Index tensors lie on the device asked for.

    sizes      tokens of each record, its images' included, on the host
    layout     record (as segment), modality, place in the record (as position)
    source     which of [text tokens, row by row; images' tokens, image by image] stands at each place; 0 for filling
    text       the place, counted row by row, of each real text token, record by record
    before     the place of each target's predecessor: what the target is predicted from
    targets    which number of the token matrix each target is
    record     whose target it is
    last       the place of each record's last token
    padded     whether there is a row a record
    even       whether no place is filling, a row being a record
    """

    sizes: Int64[Tensor, " b"]
    layout: Layout
    source: Int64[Tensor, "r l"]
    text: Int64[Tensor, " n"]
    before: Int64[Tensor, " m"]
    targets: Int64[Tensor, " m"]
    record: Int64[Tensor, " m"]
    last: Int64[Tensor, " b"]
    padded: bool
    even: bool

    def take(
        self, text: Float[Tensor, "b t d"], images: Float[Tensor, "i p d"] | None = None
    ) -> Float[Tensor, "r l d"]:
        """Text and images' tokens in their places."""
        rows = text.flatten(0, 1)
        if images is not None:
            rows = torch.cat([rows, images.flatten(0, 1).to(rows.dtype)])
        return rows.index_select(0, self.source.flatten()).unflatten(0, self.source.shape)

    def mask(self, seen: Seen) -> MaskPlan | None:
        """A token sees its own record: what stands before it and itself, and with "prefix" all its images' tokens."""
        rule = causal() if seen == "causal" else prefix(IMAGE)
        if self.padded and seen == "causal":  # no real token sees the padding behind it
            return causal().plan(Layout.plain(self.layout.length, self.layout.device))
        if self.padded:
            # rows of one form each: images' tokens first, so filling is seen by filling alone
            return (rule & padding()).plan(self.layout) if not self.even else rule.plan(self.layout)
        plan = (block_diagonal() & rule).plan(self.layout)
        assert plan is not None
        records = len(self.sizes)
        sample = self.layout.segments().clamp(max=records - 1)
        return replace(plan, sees=None, sample=sample, samples=records)

    def at(self, x: Float[Tensor, "r l d"], places: Int64[Tensor, " m"]) -> Float[Tensor, "m d"]:
        """The tokens at some places."""
        return x.flatten(0, 1).index_select(0, places)


def splice(
    lengths: Int64[Tensor, " b"],
    width: int,
    image_tokens: int,
    image_record: Int64[Tensor, " i"] | None = None,
    image_position: Int64[Tensor, " i"] | None = None,
    loss_mask: Bool[Tensor, "b t"] | None = None,
    device: torch.device | None = None,
    form: Form = "rows",
) -> Splice:
    """Where to put texts of `lengths` tokens (out of a (b, width) matrix) and images of `image_tokens` tokens each.

    Image i stands in row image_record[i], before text token image_position[i] (None: before the first); both are on the
    host, ascending. `loss_mask` (None: all but each row's first token) says which tokens are targets; the very first
    token of a row is predicted from nothing, and never one. Raises DataError for places that are not in the text.
    """
    device = device or torch.device("cpu")
    sizes = host_lengths(lengths, width).numpy()
    owners, positions = _images(sizes, image_record, image_position)
    counts = np.bincount(owners, minlength=len(sizes)) if len(owners) else np.zeros(len(sizes), np.int64)
    whole = sizes + image_tokens * counts
    kind, start, size, rows = _arrange(whole, form)
    # where each text token and each image's token stands in its record
    text_owner, text_number = np.repeat(np.arange(len(sizes)), sizes), ascending(sizes)
    ahead = _images_ahead(text_owner, text_number, owners, positions, len(sizes), width)
    text_place = text_number + image_tokens * ahead
    order = ascending(counts)
    image_place = (positions + image_tokens * order)[:, None] + np.arange(image_tokens)
    at_text = start[text_owner] + text_place
    at_image = (start[owners][:, None] + image_place).ravel()
    source, segment, modality, place = _places(rows * size, PADDING if kind == "padded" else len(sizes))
    source[at_text], segment[at_text], place[at_text] = text_owner * width + text_number, text_owner, text_place
    source[at_image] = len(sizes) * width + np.arange(len(at_image))
    segment[at_image], place[at_image] = np.repeat(owners, image_tokens), image_place.ravel()
    modality[at_image] = IMAGE
    if kind == "padded":
        segment[segment >= 0] = 0
    wanted = _wanted(loss_mask, text_owner, text_number) & (text_place > 0)
    moved = send(
        [source, segment, modality, place, at_text, at_text[wanted] - 1]
        + [(text_owner * width + text_number)[wanted], text_owner[wanted], start + np.maximum(whole - 1, 0)]
        + ([np.concatenate([start, [whole.sum()]])] if kind == "flat" else []),
        device,
    )
    shaped = [t.view(-1, size) for t in moved[:4]]
    runs = Runs(moved[9].int(), round_up(int(whole.max(initial=1)))) if kind == "flat" else None
    return Splice(
        sizes=torch.from_numpy(whole),
        layout=Layout(size, shaped[1], shaped[2], shaped[3], device, runs),
        source=shaped[0],
        text=moved[4],
        before=moved[5],
        targets=moved[6],
        record=moved[7],
        last=moved[8],
        padded=kind == "padded",
        even=kind == "padded" and bool((whole == size).all()),
    )


def _arrange(whole: np.ndarray, form: Form) -> tuple[Form, np.ndarray, int, int]:
    """(the form taken, where each record starts, length of a row, rows)."""
    longest = max(int(whole.max(initial=1)), 1)
    if form == "flat" and len(whole) and whole.sum():
        return "flat", np.cumsum(whole) - whole, int(whole.sum()), 1
    if form == "rows" and len(whole) and whole.sum():
        size, start, rows = packed_rows(whole, longest, int(whole.sum()))
        if rows * size < len(whole) * longest:
            return "rows", start, size, rows
    return "padded", np.arange(len(whole)) * longest, longest, len(whole)


def _images(
    sizes: np.ndarray, record: Int64[Tensor, " i"] | None, position: Int64[Tensor, " i"] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The images' records and positions, checked."""
    if record is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    owners = record.cpu().numpy()
    positions = np.zeros(len(owners), np.int64) if position is None else position.cpu().numpy()
    if len(owners) and (owners.min() < 0 or owners.max() >= len(sizes)):
        raise DataError(
            f"image_record must name records of the batch, 0 to {len(sizes) - 1}; got {owners.min()} to {owners.max()}."
        )
    if (positions < 0).any() or (positions > sizes[owners]).any():
        raise DataError(
            f"image_position must lie in its record's text of at most {sizes.max(initial=0)} tokens; got up to "
            f"{positions.max()}. Drop the images whose place was cut off."
        )
    ascends = np.diff(owners) > 0
    if not (ascends | ((np.diff(owners) == 0) & (np.diff(positions) >= 0))).all():
        raise DataError("images must come record by record, in the order of their places. Sort them.")
    return owners, positions


def _images_ahead(
    owner: np.ndarray, number: np.ndarray, image_owner: np.ndarray, position: np.ndarray, records: int, width: int
) -> np.ndarray:
    """How many images of its record stand before each text token."""
    if not len(image_owner):
        return np.zeros(len(owner), np.int64)
    keys = image_owner * (width + 2) + position  # ascending
    upto = np.searchsorted(keys, owner * (width + 2) + number, side="right")
    first = np.searchsorted(image_owner, np.arange(records))
    return upto - first[owner]


def _wanted(loss_mask: Tensor | None, owner: np.ndarray, number: np.ndarray) -> np.ndarray:
    return number > 0 if loss_mask is None else loss_mask.cpu().numpy()[owner, number]


def _places(total: int, filling: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    zeros = [np.zeros(total, np.int64) for _ in range(2)]
    return zeros[0], np.full(total, filling), np.full(total, TEXT), zeros[1]
