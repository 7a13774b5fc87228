"""Rows in which what several texts begin with stands once: the same function under causal attention, in fewer tokens.

Under causal attention a token's output depends on the tokens up to it and nothing else. Texts of one row that begin
alike ("<start>" at least, "a photo of a" among prompts, all of a caption that occurs twice) therefore share those
outputs: sorted texts are a tree, written in preorder, in which a token sees the tokens that it continues. Value and
gradient are those of the texts apart, where a shared token's gradient is the sum over its texts. Of 256 short captions
a quarter of the tokens goes, of prompts for many classes more than half.

This form reads ids, and so wants them on the host. Not for training with drop-path: its draw is one for each text.
"""

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from diptych.nn.mask import Layout
from diptych.nn.packing import Packing, ascending, round_up, send

ROW = 64
"""Rows are about as long: each begins with its own copy of what its texts share."""


def pack_tree(tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Packing | None:
    """Rows of shared beginnings for causal attention; None where padding to the longest takes no more places."""
    width, ids, sizes = tokens.shape[1], tokens.numpy(), lengths.numpy()
    texts, longest = len(sizes), int(sizes.max(initial=0))
    if texts < 2 or longest == 0:
        return None
    depth = np.arange(longest)
    ids = np.where(depth < sizes[:, None], ids[:, :longest], 0)
    order = _sorted(ids)
    shared, n = _shared(ids[order], sizes[order]), sizes[order]
    size = min(max(ROW, round_up(longest)), round_up(int((n - shared).sum())))
    row, start = _place(shared, n, size)
    rows = int(row[-1]) + 1
    if rows * size >= texts * longest:
        return None
    path = _paths(shared, start, longest)
    written = (shared[:, None] <= depth) & (depth < n[:, None])  # by the text that first needs it
    text, level = np.nonzero(written)
    places = path[written]
    total = rows * size
    source, position = np.zeros(total, np.int64), np.zeros(total, np.int64)
    reach = np.arange(total) + 1  # filling sees itself
    source[places], position[places] = order[text] * width + level, level
    reach[places] = _ends(shared, row, start, n, longest)[written]
    reach -= np.arange(total) // size * size
    back = np.empty_like(path)
    back[order] = path
    some = sizes > 0
    reals = back[depth < sizes[:, None]]
    first, last = np.where(some, back[:, 0], 0), np.where(some, back[np.arange(texts), sizes - 1], 0)
    owner, empty = np.repeat(np.arange(texts), sizes), np.flatnonzero(~some)
    targets = owner * width + ascending(sizes)
    moved = send([source, position, reach, reals, targets, first, last, sizes, empty], tokens.device)
    source_, position_, reach_ = (t.view(rows, size) for t in moved[:3])
    return Packing(
        width=width,
        lengths=lengths,
        layout=Layout(size, position=position_, reach=reach_, device=tokens.device),
        source=source_,
        places=moved[3],
        targets=moved[4],
        first=moved[5],
        last=moved[6],
        counts=moved[7],
        empty=moved[8] if len(empty) else None,
    )


def _sorted(ids: np.ndarray) -> np.ndarray:
    """The order in which texts that begin alike stand together: big-endian bytes compare as numbers do."""
    keys = np.ascontiguousarray(ids.astype(">u4"))
    return np.argsort(keys.view(np.dtype((np.void, keys.shape[1] * 4)))[:, 0], kind="stable")


def _shared(ids: np.ndarray, n: np.ndarray) -> np.ndarray:
    """How many tokens each text shares with the one before it."""
    alike = np.logical_and.accumulate(ids[1:] == ids[:-1], axis=1).sum(1)
    return np.concatenate([[0], np.minimum(alike, np.minimum(n[1:], n[:-1]))])


def _place(shared: np.ndarray, n: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The row of each text, and the place where its own tokens start. A row's first text shares nothing: `shared` is
    set so."""
    row, start, used = -1, [], size
    rows = []
    for i, (common, length) in enumerate(zip(shared.tolist(), n.tolist(), strict=True)):
        if row < 0 or used + length - common > size:
            row, used, common = row + 1, 0, 0
            shared[i] = 0
        rows.append(row)
        start.append(row * size + used)
        used += length - common
    return np.array(rows), np.array(start)


def _paths(shared: np.ndarray, start: np.ndarray, longest: int) -> np.ndarray:
    """(text, depth) -> that token's place: the last text up to this one that shares no more than that wrote it."""
    texts, depth = np.arange(len(start))[:, None], np.arange(longest)
    by = np.maximum.accumulate(np.where(shared[:, None] <= depth, texts, 0), axis=0)
    return start[by] + depth - shared[by]


def _ends(shared: np.ndarray, row: np.ndarray, start: np.ndarray, n: np.ndarray, longest: int) -> np.ndarray:
    """(text, depth) -> where the tokens end that continue this one: at the next text that shares no more than that, or
    where its row's last text ends."""
    texts, depth = len(start), np.arange(longest)
    at = np.where(shared[:, None] <= depth, np.arange(texts)[:, None], texts)
    following = np.minimum.accumulate(at[::-1], axis=0)[::-1]
    following = np.concatenate([following[1:], np.full((1, longest), texts)])
    row_end = (start + n - shared)[np.searchsorted(row, row, side="right") - 1]
    here = np.append(row, -1)[following] == row[:, None]
    return np.where(here, np.append(start, 0)[following], row_end[:, None])
