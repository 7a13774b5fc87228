"""The Q-Former one pair at a time, without padding and without a batch, and its losses as plain loops over pairs."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.models.blip2 import Blip2
from diptych.models.connectors.qformer import QFormer
from tests.reference import attention as reference

Sees = Callable[[int, int], bool]


def rule(seen: str, m: int) -> Sees:
    """Whether token i may see token j, of m queries and a text behind them."""
    if seen == "full":
        return lambda i, j: True
    if seen == "isolated":
        return lambda i, j: (i < m) == (j < m)
    return lambda i, j: j < m if i < m else j < m or j <= i


def states(former: QFormer, heads: int, context: Tensor | None, text: Tensor | None, seen: str) -> Tensor:
    """States (m + t, d) of the queries, which are there if a context (p, c) is, and of a text's embeddings (t, d)."""
    m = 0 if context is None else len(former.queries)
    rows = ([] if context is None else [former.queries]) + ([] if text is None else [text])
    x = _norm(former.norm_embed, torch.cat(rows))
    sees = rule(seen, m)
    allowed = torch.tensor([[[sees(i, j) for j in range(len(x))] for i in range(len(x))]])
    for block in former.blocks:
        weights = dict(block.named_parameters())
        x = _norm(block.norm_1, x + reference.self_attention(x[None], weights, "attention.", heads, allowed)[0])
        out = []
        for i in range(len(x)):
            y = x[i]
            if i < m:
                if block.cross_attention is not None:
                    y = _norm(block.norm_cross, y + _cross(block.cross_attention, y, context, heads))
                y = _norm(block.norm_2, y + _mlp(block.mlp, y))
            else:
                y = _norm(block.norm_text, y + _mlp(block.text_mlp, y))
            out.append(y)
        x = torch.stack(out)
    return x


def pair(model: Blip2, image: Tensor | None, ids: list[int], seen: str) -> Tensor:
    """States of the queries over an image's tokens (p, c), and of a text."""
    text = model.token_embed.weight[ids].clone()
    if seen == "visible":
        text[0] = model.write_token
    return states(model.qformer, model.config.qformer.heads, image, text + model.position_embed[: len(ids)], seen)


def written(model: Blip2, image: Tensor, ids: list[int]) -> Tensor:
    """Logits of each token but the first."""
    x = pair(model, image, ids, "visible")[len(model.qformer.queries) : -1]
    x = _norm(model.writing_head.norm, F.gelu(model.writing_head.fc(x)))
    return x @ model.token_embed.weight.T + model.head_bias


def similarity(model: Blip2, image: Tensor, ids: list[int]) -> Tensor:
    """The largest cosine of a query and the text's first token."""
    queries = states(model.qformer, model.config.qformer.heads, image, None, "full")
    query = F.normalize(model.query_projection(queries), dim=-1)
    text = F.normalize(model.text_projection(pair(model, None, ids, "full")[0]), dim=-1)
    return (query @ text).max()


def matching(model: Blip2, image: Tensor, ids: list[int]) -> Tensor:
    """Two logits."""
    m = len(model.qformer.queries)
    return model.matching_head(pair(model, image, ids, "full")[:m]).mean(0)


def loss(
    model: Blip2,
    images: Tensor,
    texts: list[list[int]],
    same: list[list[bool]],
    wrong: tuple[list[int | None], list[int | None]],
    smoothing: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(contrast, matching, writing) of image tokens (b, p, c) and texts. `same`: pairs that are not each other's
    negatives; `wrong`: which image is put before each text and which text behind each image."""
    n, scale = len(texts), model.log_logit_scale.exp()
    logits = [[scale * similarity(model, images[i], texts[j]) for j in range(n)] for i in range(n)]
    contrast = 0.0
    for way in (lambda i, j: logits[i][j], lambda i, j: logits[j][i]):
        for i in range(n):
            open_ = [j for j in range(n) if j == i or not same[i][j]]
            log_z = torch.stack([way(i, j) for j in open_]).logsumexp(0)
            contrast = contrast + (1 - smoothing) * (log_z - way(i, i))
            contrast = contrast + smoothing * sum(log_z - way(i, j) for j in open_) / len(open_)
    judged = [(i, i, 1) for i in range(n)]
    judged += [(i, j, 0) for j, i in enumerate(wrong[0]) if i is not None]
    judged += [(i, j, 0) for i, j in enumerate(wrong[1]) if j is not None]
    match = sum(-matching(model, images[i], texts[j]).log_softmax(-1)[answer] for i, j, answer in judged)
    said, tokens = 0.0, 0
    for image, ids in zip(images, texts, strict=True):
        log_p = written(model, image, ids).log_softmax(-1)
        for place, token in enumerate(ids[1:]):
            said = said - (1 - smoothing) * log_p[place, token] - smoothing * log_p[place].mean()
            tokens += 1
    return contrast / (2 * n), match / len(judged), said / tokens


def _cross(attention: nn.Module, query: Tensor, context: Tensor, heads: int) -> Tensor:
    def split(x: Tensor) -> Tensor:
        return x.view(1, len(x), heads, -1).transpose(1, 2)

    q, k, v = attention.q_proj(query[None]), attention.k_proj(context), attention.v_proj(context)
    out = reference.attend(split(q), split(k), split(v))
    return attention.out_proj(out.transpose(1, 2).reshape(-1))


def _mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    h = mlp.fc_1(x)
    return mlp.fc_2(h * 0.5 * (1 + torch.erf(h / math.sqrt(2))))


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
