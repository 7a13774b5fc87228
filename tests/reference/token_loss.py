"""The cross-entropy of next tokens with all logits at once."""

import torch
from torch import Tensor


def dense_token_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float, z_loss: float, scale: Tensor
) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias).float()
    log_p = logits.log_softmax(-1)
    nll = -log_p.gather(1, targets[:, None])[:, 0]
    each = (1 - smoothing) * nll - smoothing * log_p.mean(1) + z_loss * logits.logsumexp(1) ** 2
    return (scale * each).sum()
