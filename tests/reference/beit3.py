"""BEiT-3 one record at a time, without padding, batches or kernels, and its loss as loops over what is hidden."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.models.beit3 import BEiT3
from diptych.nn.multiway import MultiwayBlock
from tests.reference import attention as reference


def embed_image(model: BEiT3, image: Tensor, hidden: list[int]) -> Tensor:
    """CLS and patches of one image of 0..255, those in `hidden` being the mask token."""
    e, side = model.image_embed, model.config.patch_size
    pixels = model.normalise(image[None])[0]
    rows, columns = e.grid
    out = [e.cls_token + e.position_embed[e.offset]]
    for r in range(rows):
        for c in range(columns):
            patch = pixels[:, r * side : (r + 1) * side, c * side : (c + 1) * side]
            x = (e.patch_embed.weight * patch).sum((1, 2, 3)) + e.patch_embed.bias
            place = r * columns + c
            x = e.mask_token if place in hidden else x
            out.append(x + e.position_embed[e.offset + 1 + place])
    return torch.stack(out)


def embed_text(model: BEiT3, ids: list[int]) -> Tensor:
    """Tokens of one text."""
    e = model.text_embed
    return torch.stack([e.token_embed.weight[t] + e.position_embed[e.offset + i] for i, t in enumerate(ids)])


def states(model: BEiT3, image: Tensor | None, text: Tensor | None) -> Tensor:
    """States of all tokens, the image's first."""
    p = 0 if image is None else len(image)
    x = torch.cat([y for y in (image, text) if y is not None])
    for block in model.blocks:
        x = _block(block, x, p, model.config.blocks.heads)
    if len(model.norms):
        kinds = ["image" if i < p else "text" for i in range(len(x))]
        norms = [model.norms["both" if "both" in model.norms else k] for k in kinds]
        x = torch.stack([_norm(norm, y) for norm, y in zip(norms, x, strict=True)])
    return x


def loss(
    model: BEiT3,
    images: list[Tensor | None],
    texts: list[list[int] | None],
    patches: list[list[int]],
    tokens: list[dict[int, int]],
) -> Tensor:
    """The mean over records (an image, a text, or both) of the mean over hidden `patches` of -log p(code), plus the
    mean over the places in `tokens` of -log p(what is there); the values of `tokens` are what is read instead."""
    total = torch.zeros(())
    for image, text, hidden, read in zip(images, texts, patches, tokens, strict=True):
        x_image = None if image is None else embed_image(model, image, hidden)
        ids = None if text is None else [read.get(i, t) for i, t in enumerate(text)]
        x = states(model, x_image, None if ids is None else embed_text(model, ids))
        p = 0 if x_image is None else len(x_image)
        if image is not None:
            codes = model.codec.codes(image[None])[0]
            log_p = [model.code_head(x[1 + i]).log_softmax(-1)[codes[i]] for i in hidden]
            total = total - sum(log_p) / len(log_p)
        if text is not None:
            log_p = [model.token_logits(x[p + i]).log_softmax(-1)[text[i]] for i in read]
            total = total - sum(log_p) / len(log_p)
    return total / len(images)


def _block(block: MultiwayBlock, x: Tensor, p: int, heads: int) -> Tensor:
    kinds = ["image" if i < p else "text" for i in range(len(x))]
    paired = 0 < p < len(x)
    q, k, v = [], [], []
    for kind, y in zip(kinds, x, strict=True):
        half = block.attends["both" if "both" in block.attends else kind]
        z, a = _norm(half.norm_1, y), half.attention
        for into, proj in ((q, a.q_proj), (k, a.k_proj), (v, a.v_proj)):
            into.append(proj(z).view(heads, -1))
    q, k, v = (torch.stack(y, dim=1)[None] for y in (q, k, v))
    found = reference.attend(q, k, v)[0].transpose(0, 1).flatten(1)  # (s, d)
    out = []
    for kind, y, z in zip(kinds, x, found, strict=True):
        half = block.attends["both" if "both" in block.attends else kind]
        inner = half.attention.inner_norm
        y = y + half.attention.out_proj(z if inner is None else _norm(inner, z))
        wide = block.widens["pair" if paired and "pair" in block.widens else kind]
        h = wide.mlp.fc_1(_norm(wide.norm_2, y))
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
        h = h if wide.mlp.inner_norm is None else _norm(wide.mlp.inner_norm, h)
        out.append(y + wide.mlp.fc_2(h))
    return torch.stack(out)


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
