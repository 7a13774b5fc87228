"""Texts back to back instead of padded: where each token goes, what it may see there, and the way back.

A packing follows from the lengths alone, on the host, so that shapes are known without waiting for a device. Two
forms, both exactly the function of padded rows:

- rows: texts fill rows of one length as well as they fit (best fit, longest first) under a block-diagonal mask. On a
  CPU this beat, in samples/s of whole towers, groups of equal lengths: the matrix products are
  those of the real tokens, and attention is a few medium matrices instead of many tiny ones.
- flat: one row with every token, for a kernel that knows segments by their bounds (CUDA).

`nn/prefix_tree.py` makes a third, which looks at the ids as well.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.core.errors import DataError
from diptych.nn.mask import Layout, MaskPlan, Runs, block_diagonal, causal, lineage

Form = Literal["rows", "flat"]

STEP, SHORTEST = 16, 32
"""Rows are a multiple of STEP tokens long, so that few shapes occur, and at least SHORTEST, so that texts fit well."""

WASTE = 1 / 16
"""Longer rows are tried while more than this share of the places stays empty."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of b texts stand in r rows of l places. Index tensors lie on the device of the tokens.

    width         columns of the token matrix that it was made for
    lengths       of the texts; these stay on the host
    layout        text (as segment), position (0 for filling) and, for a flat row, runs. Filling is a text of its own,
                  the b-th: it is seen by no other and yet sees something, so that no softmax is over nothing
    source        which number of the token matrix stands at each place; 0 for filling
    places        the place, counted row by row, of each real token, text by text; None: all places, in that order
    targets       which number of the token matrix each real token is, text by text
    first, last   the place of each text's first and last token; 0 for texts without tokens
    counts        `lengths`, on the device
    empty         the texts without tokens; None: there are none
    """

    width: int
    lengths: Int64[Tensor, " b"]
    layout: Layout
    source: Int64[Tensor, "r l"]
    places: Int64[Tensor, " n"] | None
    targets: Int64[Tensor, " n"]
    first: Int64[Tensor, " b"]
    last: Int64[Tensor, " b"]
    counts: Int64[Tensor, " b"]
    empty: Int64[Tensor, " e"] | None

    def take(self, tokens: Int64[Tensor, "b t"]) -> Int64[Tensor, "r l"]:
        """The ids, packed."""
        return tokens.flatten()[self.source]

    def mask(self, is_causal: bool) -> MaskPlan:
        """A token sees its own text, and of it, if `is_causal`, nothing behind itself."""
        tree = self.layout.reach is not None
        assert is_causal or not tree
        rule = lineage() if tree else block_diagonal() & causal() if is_causal else block_diagonal()
        plan = rule.plan(self.layout)
        assert plan is not None  # there are several texts
        plan = replace(plan, sees=None)  # every token sees itself
        if tree:
            return plan
        texts = len(self.lengths)
        return replace(plan, sample=self.layout.segments().clamp(max=texts - 1), samples=texts)

    def firsts(self, x: Float[Tensor, "r l d"]) -> Float[Tensor, "b d"]:
        """Each text's first token; zeros for a text without tokens."""
        return self.pooled(x.flatten(0, 1).index_select(0, self.first))

    def lasts(self, x: Float[Tensor, "r l d"]) -> Float[Tensor, "b d"]:
        """Each text's last token; zeros for a text without tokens."""
        return self.pooled(x.flatten(0, 1).index_select(0, self.last))

    def reals(self, x: Float[Tensor, "r l d"]) -> Float[Tensor, "n d"]:
        """All real tokens, text by text."""
        flat = x.flatten(0, 1)
        return flat if self.places is None else flat.index_select(0, self.places)

    def means(self, reals: Float[Tensor, "n d"]) -> Float[Tensor, "b d"]:
        """The mean of each text's tokens (as `reals` gives them), summed in fp32 or better; zeros where none are."""
        wide = reals.to(torch.promote_types(reals.dtype, torch.float32))
        total = torch.segment_reduce(wide, "sum", lengths=self.counts, axis=0, unsafe=True, initial=0)
        return (total / self.counts.clamp(min=1)[:, None]).to(reals.dtype)

    def unpack(self, reals: Float[Tensor, "n d"]) -> Float[Tensor, "b t d"]:
        """Real tokens (as `reals` gives them) as a padded matrix; padding is zero."""
        texts = len(self.lengths)
        padded = reals.new_zeros(texts * self.width, reals.shape[1]).index_copy(0, self.targets, reals)
        return padded.unflatten(0, (texts, self.width))

    def pooled(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """One token of each text, with zeros for a text without tokens."""
        return x if self.empty is None else x.index_fill(0, self.empty, 0)


def pack(lengths: Int64[Tensor, " b"], width: int, device: torch.device, form: Form = "rows") -> Packing | None:
    """How to pack texts of these lengths (on the host) out of a (b, width) matrix; None where padding to the longest
    takes no more places.
    """
    sizes = lengths.numpy()
    texts, longest, real = len(sizes), int(sizes.max(initial=0)), int(sizes.sum())
    if texts * longest == real:  # all of one length, or nothing at all
        return None
    if form == "flat":
        size, start = real, np.cumsum(sizes) - sizes
    else:
        size, start, rows = packed_rows(sizes, longest, real)
        if rows * size >= texts * longest:
            return None
    position, owner = ascending(sizes), np.repeat(np.arange(texts), sizes)
    places = np.repeat(start, sizes) + position
    total = real if form == "flat" else rows * size
    source, segment, place = np.zeros(total, np.int64), np.full(total, texts), np.zeros(total, np.int64)
    source[places], segment[places], place[places] = owner * width + position, owner, position
    first, empty = np.where(sizes > 0, start, 0), np.flatnonzero(sizes == 0)
    host = [source, segment, place, first, np.where(sizes > 0, start + sizes - 1, 0), sizes, empty]
    host += [np.concatenate([start, [real]]) if form == "flat" else places, owner * width + position]
    moved = send(host, device)
    source_, segment_, place_ = (t.view(-1, size) for t in moved[:3])
    runs = Runs(moved[7].int(), round_up(longest)) if form == "flat" else None
    return Packing(
        width=width,
        lengths=lengths,
        layout=Layout(size, segment=segment_, position=place_, device=device, runs=runs),
        source=source_,
        places=None if form == "flat" else moved[7],
        targets=moved[8],
        first=moved[3],
        last=moved[4],
        counts=moved[5],
        empty=moved[6] if len(empty) else None,
    )


def host_lengths(lengths: Int64[Tensor, " b"], width: int) -> Int64[Tensor, " b"]:
    """`lengths` on the host, where shapes are decided, and checked: of 0 to `width` tokens. Batches carry them there;
    lengths that come on a device are waited for.
    """
    lengths = lengths.cpu()
    if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= width:
        raise DataError(
            f"lengths must lie in 0..{width}, the width of the token matrix; got {int(lengths.min())} to "
            f"{int(lengths.max())}. Give the lengths that the tokenizer's batch returned with these tokens."
        )
    return lengths


def to_longest(
    tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
) -> tuple[Int64[Tensor, "b n"], Int64[Tensor, " b"]]:
    """Texts without the columns that hold nothing but padding (one stays), and their lengths on the host, checked."""
    lengths = host_lengths(lengths, tokens.shape[1])
    return tokens[:, : max(int(lengths.max()) if len(lengths) else 1, 1)], lengths


def best_fit(lengths: Int64[np.ndarray, " b"], size: int) -> tuple[Int64[np.ndarray, " b"], int]:
    """Where each text starts (row times `size`, plus the place in the row), and how many rows it takes.

    Longest first, each into the fullest row that has room: at most 11/9 of the best possible (Johnson, 1974), and
    next to nothing is left over where short texts abound. Rows of equal room are a stack, rooms the bits of a number.
    """
    start = np.zeros(len(lengths), np.int64)
    stacks: list[list[int]] = [[] for _ in range(size + 1)]
    rooms, rows = 0, 0
    order = np.argsort(-lengths, kind="stable")
    for i, n in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if n == 0:
            break
        fitting = rooms >> n
        if fitting:
            room = n + (fitting & -fitting).bit_length() - 1
            row = stacks[room].pop()
            if not stacks[room]:
                rooms ^= 1 << room
        else:
            row, room = rows, size
            rows += 1
        start[i] = row * size + size - room
        if room > n:
            stacks[room - n].append(row)
            rooms |= 1 << (room - n)
    return start, rows


def packed_rows(sizes: np.ndarray, longest: int, real: int) -> tuple[int, np.ndarray, int]:
    """(length of a row, where each text starts, rows): the shortest length that wastes little, else the one that takes
    the fewest places."""
    least = min(max(SHORTEST, round_up(longest)), round_up(real))
    found = []
    for size in (least, least + STEP, least + 2 * STEP, 2 * least):
        start, rows = best_fit(sizes, size)
        found.append((rows * size, size, start, rows))
        if rows * size * (1 - WASTE) <= real:
            break
    _, size, start, rows = min(found, key=lambda f: f[:2])
    return size, start, rows


def ascending(sizes: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " n"]:
    """0, 1, ... of each text, back to back."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def round_up(n: int) -> int:
    """The next multiple of STEP."""
    return -(-n // STEP) * STEP


def send(arrays: list[np.ndarray], device: torch.device) -> list[Tensor]:
    """Whole numbers as tensors on `device`, in one copy, from page-locked memory: the host does not wait for it."""
    joined = torch.from_numpy(np.concatenate(arrays).astype(np.int64, copy=False))
    if device.type == "cuda":
        joined = joined.pin_memory()
    return list(joined.to(device, non_blocking=True).split([len(a) for a in arrays]))
