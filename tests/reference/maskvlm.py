"""MaskVLM one pair at a time, without padding and without a batch, and its losses as plain loops over pairs, cells and
tokens. The towers are taken as they are (they have twins of their own)."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.models.maskvlm import MaskVLM
from tests.reference import attention as reference
from tests.reference.contrastive import info_nce


class Corrupted(NamedTuple):
    """Of one pair: the numbers of its hidden cells, the ids as they were corrupted, the places of its hidden tokens."""

    cells: list[int]
    ids: list[int]
    places: list[int]


def image_states(model: MaskVLM, image: Tensor, cells: list[int] | None) -> Tensor:
    """(p, d): of one image (3 h w), of which some cells may be hidden, as the encoders read it."""
    pixels = model.normalise(image[None])
    if cells is None:
        x = model.image_tower.tokens(pixels)[0]
    else:
        masked = torch.tensor([[n in cells for n in range(model.side**2)]])
        x = model.image_tower.tokens_of_masked(pixels, masked)[0]
    return x


def text_states(model: MaskVLM, ids: list[int]) -> Tensor:
    """(t, w): of one text."""
    return model.text_tower.tokens(torch.tensor([ids]), torch.tensor([len(ids)]))[0]


def cross(encoder: nn.Module, heads: int, x: Tensor, context: Tensor) -> Tensor:
    """Pre-norm blocks: each token attends to all of x, then to all of the context, then goes through the MLP."""
    for block in encoder.blocks:
        weights = dict(block.named_parameters())
        y = _norm(block.norm_1, x)[None]
        x = x + reference.self_attention(y, weights, "attention.", heads, None)[0]
        x = torch.stack([t + _look(block.cross_attention, _norm(block.norm_cross, t), context, heads) for t in x])
        x = torch.stack([t + _mlp(block.mlp, _norm(block.norm_2, t)) for t in x])
    return _norm(encoder.norm, x)


def painted(model: MaskVLM, crossed: Tensor, heads: int, cell: int) -> Tensor:
    """The normalised pixels (3 * side * side) of a cell."""
    decoder = model.image_decoder
    x = crossed
    for block in decoder.blocks:
        weights = dict(block.named_parameters())
        x = x + reference.self_attention(_norm(block.norm_1, x)[None], weights, "attention.", heads, None)[0]
        x = torch.stack([t + _mlp(block.mlp, _norm(block.norm_2, t)) for t in x])
    return decoder.head(_norm(decoder.norm, x)[model.prefix + cell])


def truth(model: MaskVLM, image: Tensor, cell: int) -> list[float]:
    """The normalised pixels of a cell: channel by channel, row by row."""
    pixels, side = model.normalise(image[None])[0], model.cell
    row, column = divmod(cell, model.side)
    return [
        float(pixels[c, row * side + i, column * side + j]) for c in range(3) for i in range(side) for j in range(side)
    ]


def loss(
    model: MaskVLM,
    images: Tensor,
    texts: list[list[int]],
    corrupted: list[Corrupted],
    ids: tuple[list[int], list[int]],
    wrong: tuple[list[int], list[int]],
    smoothing: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(mim, mlm, contrast, matching). `ids` of texts and of images; `wrong`: which image is put before each text and
    which text behind each image."""
    n, heads = len(texts), model.config.crossing.heads
    image = [image_states(model, x, None) for x in images]
    text = [text_states(model, x) for x in texts]
    seen, read = [model.enter_image(x[None])[0] for x in image], [model.enter_text(x[None])[0] for x in text]
    errors, nll = [], []
    for i, hidden in enumerate(corrupted):
        masked = model.enter_image(image_states(model, images[i], hidden.cells)[None])[0]
        crossed = cross(model.image_cross, heads, masked, read[i])
        for cell in hidden.cells:
            found = painted(model, crossed, heads, cell)
            errors += [(a - b).abs() for a, b in zip(found, truth(model, images[i], cell), strict=True)]
        masked = model.enter_text(text_states(model, hidden.ids)[None])[0]
        crossed = cross(model.text_cross, heads, masked, seen[i])
        for place in hidden.places:
            head = model.writing_head
            state = model.text_out(_norm(head.norm, F.gelu(head.fc(crossed[place]))))
            logits = model.text_tower.token_embed.weight[: model.vocab_size] @ state + model.head_bias
            nll.append(-logits.log_softmax(0)[texts[i][place]])
    unit_image = torch.stack([F.normalize(model.image_projection(x[0]), dim=0) for x in image])
    unit_text = torch.stack([F.normalize(model.text_projection(x[0]), dim=0) for x in text])
    contrast = info_nce(unit_image, unit_text, model.log_logit_scale, *ids, "mask", smoothing)
    judged = [(i, i, 1) for i in range(n)]
    judged += [(i, j, 0) for j, i in enumerate(wrong[0])] + [(i, j, 0) for i, j in enumerate(wrong[1])]
    match = []
    for i, j, answer in judged:
        looked = cross(model.image_cross, heads, seen[i], read[j])[0]
        told = cross(model.text_cross, heads, read[j], seen[i])[0]
        match.append(-model.matching_head(torch.cat([looked, told])).log_softmax(0)[answer])
    return tuple(torch.stack(x).mean() if isinstance(x, list) else x for x in (errors, nll, contrast, match))


def _look(attention: nn.Module, query: Tensor, context: Tensor, heads: int) -> Tensor:
    def split(x: Tensor) -> Tensor:
        return x.view(1, len(x), heads, -1).transpose(1, 2)

    q, k, v = attention.q_proj(query[None]), attention.k_proj(context), attention.v_proj(context)
    return attention.out_proj(reference.attend(split(q), split(k), split(v)).transpose(1, 2).reshape(-1))


def _mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    h = mlp.fc_1(x)
    return mlp.fc_2(h * 0.5 * (1 + torch.erf(h / math.sqrt(2))))


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
