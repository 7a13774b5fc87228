"""LeGrad in the open: a vision transformer written with explicit attention matrices, of which autograd is asked."""

import torch
from torch import Tensor


def legrad(tower, images: Tensor, match, own: bool = False) -> Tensor:
    """(b, rows, columns): `match` says of pooled vectors (b, e) how well each fits its text. Pre-norm blocks only.
    `own`: of each block's own output, as if it were the last."""
    c = tower.config
    x = tower.patch_embed(images)
    if tower.cls_token is not None:
        x = torch.cat([tower.cls_token.expand(len(x), 1, -1), x], 1)
    x = x + tower.position_embed
    x = x if tower.norm_pre is None else tower.norm_pre(x)
    maps, outputs = [], []
    for block in tower.blocks:
        y, a = block.norm_1(x), block.attention
        heads = []
        weights = []
        width = c.width // c.heads
        for n in range(c.heads):
            part = slice(n * width, (n + 1) * width)
            q, k, v = (p(y)[:, :, part] for p in (a.q_proj, a.k_proj, a.v_proj))
            scores = torch.einsum("bqd,bkd->bqk", q, k) / width**0.5
            weights.append(scores.exp() / scores.exp().sum(-1, keepdim=True))
            heads.append(torch.einsum("bqk,bkd->bqd", weights[-1], v))
        maps.append(weights)
        x = x + a.out_proj(torch.cat(heads, -1))
        x = x + block.mlp(block.norm_2(x))
        outputs.append(x)

    def pooled(x: Tensor) -> Tensor:
        x = tower.norm_post(x)
        x = x.mean(1) if tower.cls_token is None else x[:, 0]
        return x if tower.projection is None else tower.projection(x)

    heat = 0
    for weights, x_of_block in zip(maps, outputs, strict=True):
        value = match(pooled(x_of_block if own else x)).sum()
        grads = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
        for g in grads:
            heat = heat + g.clamp(min=0).mean(1) / c.heads  # over queries; then over heads
    heat = heat[:, 1:] if tower.cls_token is not None else heat
    side = round(heat.shape[1] ** 0.5)
    return heat.view(len(heat), side, side).detach()
