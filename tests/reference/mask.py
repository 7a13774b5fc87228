"""Every mask rule as a question about one query and one key, asked in plain loops."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.nn.mask import PADDING, QUERY, TEXT, Layout


@dataclass(frozen=True)
class Token:
    """What one place of a layout holds."""

    segment: int
    modality: int
    position: int


def tokens_of(layout: Layout, row: int) -> list[Token]:
    """A row of a layout as a list."""

    def pick(t: Tensor | None, i: int, plain: int) -> int:
        return plain if t is None else int(t[row if t.shape[0] > 1 else 0, i])

    return [
        Token(pick(layout.segment, i, 0), pick(layout.modality, i, TEXT), pick(layout.position, i, i))
        for i in range(layout.length)
    ]


def last_medium(q: Token, ks: list[Token]) -> int | None:
    """Where the last medium stands at or before the query, in its own segment."""
    places = [k.position for k in ks if k.modality != TEXT and k.segment == q.segment and k.position <= q.position]
    return max(places, default=None)


Question = Callable[[Token, Token, list[Token]], bool]

RULES: dict[str, Question] = {
    "bidirectional": lambda q, k, ks: True,
    "causal": lambda q, k, ks: k.position <= q.position,
    "padding": lambda q, k, ks: k.segment != PADDING,
    "block_diagonal": lambda q, k, ks: q.segment != PADDING and k.segment == q.segment,
    "prefix": lambda q, k, ks: k.modality == 1 or k.position <= q.position,
    "media_causal": lambda q, k, ks: (
        q.segment != PADDING
        and k.segment == q.segment
        and k.modality != TEXT
        and k.position <= q.position
        and k.position == last_medium(q, ks)
    ),
    "query_isolated": lambda q, k, ks: (q.modality == QUERY) == (k.modality == QUERY),
    "query_visible": lambda q, k, ks: k.modality == QUERY or (q.modality != QUERY and k.position <= q.position),
}


def dense(rule: Question, query: Layout, key: Layout, rows: int) -> Tensor:
    """The matrix (rows, q, k) of a rule, entry by entry."""
    out = torch.zeros(rows, query.length, key.length, dtype=torch.bool)
    for b in range(rows):
        qs, ks = tokens_of(query, b), tokens_of(key, b)
        for i, q in enumerate(qs):
            for j, k in enumerate(ks):
                out[b, i, j] = rule(q, k, ks)
    return out
