"""A record of any number of segments as one row of tokens: where each image stands in it, and what of it bears loss.

A row is ``<start>``, the ids of the text segments one after another, ``<end>``. Images take no token: each has a place,
the number of the token before which it stands. What goes beyond the context is cut off at the row's end and counted, so
that no token ever bears loss without all that came before it; an image whose place was cut away goes with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from diptych.data.record_files import Pieces
from diptych.data.tokenize import Encoded, Tokenizer

Places = tuple[int, ...]
BEFORE_ALL: Places = (0,)
"""One image before the first token: what a pair of an image and its caption has."""


@dataclass(frozen=True, slots=True)
class Row(Encoded):
    """The ids of a row and whether its end was cut off, and besides:

    places   before which token each of its images stands, ascending; the row's length: after all of them
    loss     whether each token bears loss as a target; None: all but the first, as for a caption
    """

    places: Places = BEFORE_ALL
    loss: list[bool] | None = None


def compose(records: Sequence[tuple[Pieces, int]], tokenizer: Tokenizer) -> list[Row]:
    """The row of each record, of which the alternative of that number is said. They are counted as the tokenizer's."""
    texts = [words.texts[which % len(words.texts)] for pieces, which in records for words in pieces.texts]
    ids = tokenizer.bare(texts)
    rows, at = [], 0
    for pieces, _ in records:
        rows.append(_row(pieces, ids[at : at + len(pieces.texts)], tokenizer))
        at += len(pieces.texts)
    tokenizer.count(len(rows), sum(r.truncated for r in rows))
    return rows


def compose_alternatives(pieces: Pieces, tokenizer: Tokenizer) -> list[Row]:
    """A row for each alternative of one record."""
    return compose([(pieces, which) for which in range(pieces.alternatives)], tokenizer)


def _row(pieces: Pieces, parts: list[list[int]], tokenizer: Tokenizer) -> Row:
    start, end = tokenizer.specials
    room = tokenizer.room
    if len(parts) == 1 and pieces.images == BEFORE_ALL and pieces.texts[0].loss:  # a pair, as most are
        return Row([*start, *parts[0][:room], *end] or [tokenizer.pad_id], len(parts[0]) > room)
    begins = [0, *accumulate(map(len, parts))]
    cut = begins[-1] > room
    said = [i for part in parts for i in part]
    ids = [*start, *said[:room], *end] or [tokenizer.pad_id]
    places = tuple(0 if k == 0 else len(start) + begins[k] for k in pieces.images)
    if cut:
        places = tuple(p for p in places if p == 0 or p < len(start) + room)
    return Row(ids, cut, places, _loss(pieces, parts, tokenizer, cut))


def _loss(pieces: Pieces, parts: list[list[int]], tokenizer: Tokenizer, cut: bool) -> list[bool] | None:
    """Where several segments are cut, the end that follows is not the text's own, and bears no loss."""
    bears = [words.loss for words in pieces.texts]
    if all(bears) and (len(bears) == 1 or not cut):
        return None
    start, end = tokenizer.specials
    said = [loss for loss, part in zip(bears, parts, strict=True) for _ in part]
    whole = [False] * len(start) + said[: tokenizer.room] + [bears[-1] and not cut] * len(end) or [False]
    whole[0] = False  # the first token follows from nothing
    return None if all(whole[1:]) else whole
