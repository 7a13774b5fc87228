"""Writing pages: words and images in one go, where the model itself says when an image begins."""

from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from diptych.core.batch import Batch
from diptych.models.code_painting import draw_codes
from diptych.models.painting import Painting
from diptych.nn.draws import uniform

Page = list[list[int] | Int64[Tensor, " n"]]
"""What follows what: words as lists of their ids, images as tensors of their codes."""


@torch.no_grad()
def write_pages(
    model: Any,
    tokens: Int64[Tensor, "b t"],
    lengths: Int64[Tensor, " b"],
    how: Painting,
    end_id: int,
    max_words: int = 32,
    max_images: int = 1,
) -> list[Page]:
    """What `model` (a Chameleon) goes on with behind each text, until `end_id`, which is left out; no more words and
    images than are allowed. `how`: seed, temperature, top_k and top_p, of words and codes alike.

    A modality grammar holds it to what it has learned: inside an image codes alone, and as many as it has places.
    """
    device, grammar = model.pixel_mean.device, model.grammar
    state = model.begin(None, Batch(tokens=tokens.to(device), lengths=lengths.cpu()))
    most = max_words + max_images * model.image_tokens
    chance = uniform(how.keys(len(tokens), device), "page", most)
    code_of = torch.full((grammar.size,), -1, device=device)
    code_of[grammar.codes] = torch.arange(len(grammar.codes), device=device)
    weight, bias = model.language.head()
    pages: list[list[int]] = [[] for _ in range(len(tokens))]
    rows = torch.arange(len(tokens), device=device)
    inside, words, images = (torch.zeros_like(rows) for _ in range(3))
    for i in range(most):
        logits = torch.nn.functional.linear(state.last, weight, bias).float()
        allowed = grammar.allowed(inside, images < max_images)
        allowed[:, end_id] &= inside == 0
        token = draw_codes(logits.masked_fill(~allowed, float("-inf")), chance[rows, i], how)
        inside, began = grammar.after(inside, token), inside == 0
        images = images + (began & (inside == 1))
        words = words + (began & (inside == 0))
        for row, said, goes_on in zip(rows.tolist(), token.tolist(), (token != end_id).tolist(), strict=True):
            pages[row] += [said] if goes_on else []
        kept = ((token != end_id) & ((words < max_words) | (inside > 0))).nonzero()[:, 0]
        if not len(kept):
            break
        if len(kept) < len(rows):  # rows that have ended cost nothing more
            state = state.select(kept)
            rows, inside, words, images, token = (x[kept] for x in (rows, inside, words, images, token))
        model.read(state, token[:, None])
    return [_page(ids, code_of, int(grammar.marks[0]), int(grammar.marks[1])) for ids in pages]


def _page(ids: list[int], code_of: Tensor, begin: int, end: int) -> Page:
    """One row of ids as words and images."""
    page: Page = []
    codes: list[int] | None = None
    for i in ids:
        if i == begin:
            codes = []
        elif i == end:
            page.append(torch.tensor(codes))
            codes = None
        elif codes is not None:
            codes.append(int(code_of[i]))
        elif page and isinstance(page[-1], list):
            page[-1].append(i)
        else:
            page.append([i])
    return page
