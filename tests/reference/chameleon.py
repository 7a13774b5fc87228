"""Chameleon plainly: a row of ids a record, read as a whole each time, and all logits at once."""

import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.models.chameleon import Chameleon
from diptych.models.painting import Painting
from diptych.nn.draws import uniform
from diptych.nn.mask import MaskPlan
from tests.reference.dalle import draw

Token = tuple[int, str]
"""An id, and "text", "silent" (a word without loss) or "image"."""


def row_of(model: Chameleon, words: list[Token], images: dict[int, list[list[int]]]) -> list[Token]:
    """Words and the codes of images that stand before the word of that number, as one row."""
    begin, end = model.mark_ids.tolist()
    row: list[Token] = []
    for place in range(len(words) + 1):
        for codes in images.get(place, []):
            row += [(i, "image") for i in (begin, *model.code_ids[torch.tensor(codes)].tolist(), end)]
        row += words[place : place + 1]
    return row


def rows_of(model: Chameleon, batch: Batch, image_first: list[bool]) -> list[list[Token]]:
    """The rows of a batch."""
    assert batch.tokens is not None
    assert batch.lengths is not None
    codes = [] if batch.images is None else model.codes(batch.images).tolist()
    found = []
    for record, length in enumerate(batch.lengths.tolist()):
        silent = [p == 0 if batch.loss_mask is None else not batch.loss_mask[record, p] for p in range(length)]
        words = [
            (w, "silent" if s else "text") for w, s in zip(batch.tokens[record, :length].tolist(), silent, strict=True)
        ]
        images: dict[int, list[list[int]]] = {}
        for i, row in enumerate(codes):
            if batch.image_record is None or int(batch.image_record[i]) == record:
                behind = 0 if image_first[record] else length
                place = behind if batch.image_position is None else int(batch.image_position[i])
                images.setdefault(place, []).append(row)
        found.append(row_of(model, words, images))
    return found


def logits_of(model: Chameleon, ids: list[int]) -> Tensor:
    """(n, v): what each place of a row says of the next, over the whole vocabulary."""
    x = model.language.embed(torch.tensor([ids]))
    hidden = model.language(x, MaskPlan(is_causal=True), torch.arange(len(ids))[None])
    return model.language.logits(hidden)[0]


def loss(
    model: Chameleon, rows: list[list[Token]], text_weight: float, image_weight: float, z_loss: float
) -> tuple[Tensor, float]:
    """(the weighted mean, the sum of weights)."""
    total, count = torch.zeros(()), 0.0
    for row in rows:
        logits = logits_of(model, [i for i, _ in row])
        for place in range(1, len(row)):
            token, kind = row[place]
            weight = {"text": text_weight, "image": image_weight, "silent": 0.0}[kind]
            log_z = logits[place - 1].logsumexp(-1)
            total = total + weight * (log_z - logits[place - 1, token] + z_loss * log_z**2)
            count += weight
    return total / count, count


@torch.no_grad()
def paint(model: Chameleon, texts: list[list[int]], how: Painting, guidance: float) -> Tensor:
    """The codes drawn behind each text, every row read anew for each."""
    chance = uniform(how.keys(len(texts), torch.device("cpu")), "codes", model.cells)
    begin, painted = int(model.mark_ids[0]), []
    for number, text in enumerate(texts):
        codes: list[int] = []
        for i in range(model.cells):
            said = [begin, *model.code_ids[torch.tensor(codes, dtype=torch.int64)].tolist()]
            shown = logits_of(model, [*text, *said])[-1][model.code_ids]
            blind = logits_of(model, said)[-1][model.code_ids]
            codes.append(draw(blind + guidance * (shown - blind), float(chance[number, i]), how))
        painted.append(torch.tensor(codes))
    return torch.stack(painted)
