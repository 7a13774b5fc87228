"""DALL-E plainly: whole rows anew for every code, a loop for every pair, all logits at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.models.dalle import Dalle
from diptych.models.painting import Painting
from diptych.nn.draws import uniform
from diptych.nn.mask import MaskPlan


def states(model: Dalle, tokens: list[int], codes: list[int]) -> Tensor:
    """The states (context + codes, d) of one row: each place's vector by hand, every block over the whole row."""
    context, columns = model.config.context_length, model.columns
    row = []
    for place in range(context):
        word = model.token_embed.weight[tokens[place]] if place < len(tokens) else model.pad_embed[place]
        row.append(word + model.position_embed[place])
    for place, code in enumerate(codes):
        at = model.row_embed[place // columns] + model.column_embed[place % columns]
        row.append(model.code_embed.weight[code] + at)
    x = torch.stack(row)[None]
    for block in model.blocks:
        x = block(x, MaskPlan(is_causal=True))
    return model.norm_final(x)[0]


def logits_of_codes(model: Dalle, tokens: list[int], codes: list[int]) -> Tensor:
    """(codes + 1, k): of each code, and of the one that would come next."""
    return model.image_head(states(model, tokens, codes))[model.config.context_length - 1 :]


def likelihood(model: Dalle, tokens: list[int], codes: list[int]) -> Tensor:
    """log p(codes | text)."""
    log_p = logits_of_codes(model, tokens, codes)[:-1].log_softmax(-1)
    return torch.stack([log_p[i, code] for i, code in enumerate(codes)]).sum()


def loss(
    model: Dalle, texts: list[list[int]], codes: list[list[int]], dropped: list[bool], weights: tuple[float, float]
) -> Tensor:
    """The weighted mean of what there is: each record's words and its codes."""
    text_weight, image_weight = (w / sum(weights) for w in weights)
    total, count = torch.zeros(()), 0.0
    for text, row, gone in zip(texts, codes, dropped, strict=True):
        found = states(model, [] if gone else text, row)
        image = F.cross_entropy(model.image_head(found)[model.config.context_length - 1 : -1], torch.tensor(row))
        total, count = total + image_weight * image, count + image_weight
        if not gone and len(text) > 1:
            words = F.cross_entropy(model.text_head(found)[: len(text) - 1], torch.tensor(text[1:]))
            total, count = total + text_weight * words, count + text_weight
    return total / count


def draw(logits: Tensor, chance: float, how: Painting) -> int:
    """A code, by going through the likeliest first and dropping the rest, then through all in order."""
    p = (logits / how.temperature).softmax(-1).double()
    order = p.argsort(descending=True).tolist()
    kept = set(order[: how.top_k] if how.top_k else order)
    p = torch.stack([x if i in kept else 0 * x for i, x in enumerate(p)])
    p = p / p.sum()
    nucleus: set[int] = set()
    for i in sorted(kept, key=lambda i: -float(p[i])):
        if sum(float(p[j]) for j in nucleus) < how.top_p:
            nucleus.add(i)
    total = sum(float(p[j]) for j in nucleus)
    gone = 0.0
    for i in range(len(p)):
        gone += float(p[i]) / total if i in nucleus else 0.0
        if chance < gone:
            return i
    return max(nucleus)


@torch.no_grad()
def paint(model: Dalle, texts: list[list[int]], how: Painting, guidance: float) -> Tensor:
    """The codes drawn for each text, without a cache."""
    chance = uniform(how.keys(len(texts), torch.device("cpu")), "codes", model.cells)
    painted = []
    for number, text in enumerate(texts):
        codes: list[int] = []
        for i in range(model.cells):
            shown = logits_of_codes(model, text, codes)[-1]
            blind = logits_of_codes(model, [], codes)[-1]
            codes.append(draw(blind + guidance * (shown - blind), float(chance[number, i]), how))
        painted.append(torch.tensor(codes))
    return torch.stack(painted)
