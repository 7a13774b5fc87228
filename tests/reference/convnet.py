"""The small residual tower (basic blocks, batch norm in evaluation, mean pooling) in plain lines over a state dict."""

import torch.nn.functional as F
from torch import Tensor

from tests.reference.modified_resnet import Weights, conv_norm


def convnet(x: Tensor, w: Weights, depths: tuple[int, ...]) -> Tensor:
    """Pooled and projected vectors of normalised float pixels; stem and downsampling are 3x3 with stride 2."""
    for stage, depth in enumerate(depths):
        at = f"stages.{stage}."
        x = conv_norm(x, w, at + "enter.conv", at + "enter.norm", stride=2).clamp(min=0)
        for i in range(depth):
            block = f"{at}blocks.{i}."
            y = conv_norm(x, w, block + "conv_1.conv", block + "conv_1.norm").clamp(min=0)
            x = (x + conv_norm(y, w, block + "conv_2.conv", block + "conv_2.norm")).clamp(min=0)
    pooled = x.flatten(2).sum(-1) / (x.shape[2] * x.shape[3])
    pooled = F.batch_norm(
        pooled,
        w["pool_norm.running_mean"],
        w["pool_norm.running_var"],
        w["pool_norm.weight"],
        w["pool_norm.bias"],
    )
    return pooled @ w["projection.weight"].T
