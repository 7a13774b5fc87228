"""A small residual convolutional tower, for small images and few cores."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.models.tower import ImageTower, ImageTowerConfig
from diptych.nn.pool import Projection, build_projection

NormKind = Literal["batch", "group"]
GROUP_WIDTH = 16
"""Channels of one group of a group norm (Wu and He, 2018, table 3)."""


class ConvNetConfig(ImageTowerConfig):
    """Settings of a residual convolutional tower. `widths` and `depths` name a stage each; a depth may be 0.

    stem_kernel    side of the first convolution's kernel
    stem_stride    its stride
    block          "basic": two 3x3 convolutions (He et al., 2016); "inverted": a 5x5 depthwise one, then a pointwise
                   MLP of ratio 4 (Sandler et al., 2018; Liu et al., 2022)
    downsample     between stages: "conv": 3x3 with stride 2; "patch": 2x2 with stride 2; "max": 3x3, then a 2x2 maximum
    norm           "batch" is the fastest to learn, but couples the images of a batch: with micro-batches its statistics
                   are of each micro-batch. "group" couples nothing
    pooling        "mean" of the places; "mean_max": mean and maximum side by side; "attention": by a learned score
    pool_norm      a norm on the pooled vector, before dropout and projection
    dropout        on the pooled vector, in training
    channels_last  memory format of the convolutions: the same function, faster on most hardware
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)
    depths: tuple[int, ...] = (1, 1, 1, 1)
    stem_kernel: int = Field(default=3, gt=0)
    stem_stride: int = Field(default=2, gt=0)
    block: Literal["basic", "inverted"] = "basic"
    activation: Literal["relu", "gelu", "silu"] = "relu"
    downsample: Literal["conv", "patch", "max"] = "conv"
    norm: NormKind = "batch"
    pooling: Literal["mean", "mean_max", "attention"] = "mean"
    pool_norm: Literal["none", "batch", "layer"] = "none"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    projection: Projection = "linear"
    channels_last: bool = True

    @model_validator(mode="after")
    def _stages_agree(self) -> "ConvNetConfig":
        if not self.widths or len(self.widths) != len(self.depths):
            raise ValueError(
                f"ConvNetConfig.widths and depths must name the same stages, at least one; got {self.widths} and "
                f"{self.depths}. Give each stage a width and a depth."
            )
        if min(self.widths) < 1 or min(self.depths) < 0:
            raise ValueError(
                f"ConvNetConfig.widths must be positive and depths not negative; got {self.widths} and {self.depths}."
            )
        if self.norm == "group" and any(w > GROUP_WIDTH and w % GROUP_WIDTH for w in self.widths):
            raise ValueError(
                f"ConvNetConfig.widths must be multiples of {GROUP_WIDTH} for norm 'group'; got {self.widths}. "
                f"Round them, or set norm to 'batch'."
            )
        return self

    @property
    def stride(self) -> int:
        """Pixels of the image per place of the last map."""
        return self.stem_stride * 2 ** (len(self.widths) - 1)

    def build(self, resolution: int, embed_dim: int) -> "ConvNet":
        if resolution < self.stride:
            raise ConfigError(
                f"resolution must be at least {self.stride}, the stride of this ConvNet; got {resolution}. "
                f"Raise it, or take fewer stages."
            )
        return ConvNet(self, embed_dim)


class ConvNorm(nn.Module):
    """A convolution without bias, a norm and, where wanted, an activation."""

    def __init__(
        self, width_in: int, width: int, kernel: int, config: ConvNetConfig, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = 0 if kernel == stride else kernel // 2  # patches do not overlap
        self.conv = nn.Conv2d(width_in, width, kernel, stride, padding, groups=groups, bias=False)
        self.norm = (
            nn.BatchNorm2d(width) if config.norm == "batch" else nn.GroupNorm(max(1, width // GROUP_WIDTH), width)
        )
        # He et al., 2015: by what each output feeds; a depthwise kernel has fan-out 1 a channel, so by what it reads
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out" if groups == 1 else "fan_in", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        return self.norm(self.conv(x))


class Basic(nn.Module):
    """x + two 3x3 convolutions, activated after the sum; at first the identity (its last norm is zero)."""

    recomputable: ClassVar[bool] = True

    def __init__(self, width: int, config: ConvNetConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.conv_1, self.conv_2 = (ConvNorm(width, width, 3, config) for _ in range(2))
        nn.init.zeros_(self.conv_2.norm.weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return _activate(x + self.conv_2(_activate(self.conv_1(x), self.activation)), self.activation)


class Inverted(nn.Module):
    """x + pointwise(activation(pointwise(depthwise x))); at first the identity (its last norm is zero)."""

    recomputable: ClassVar[bool] = True

    def __init__(self, width: int, config: ConvNetConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.depthwise = ConvNorm(width, width, 5, config, groups=width)
        self.expand, self.reduce = ConvNorm(width, 4 * width, 1, config), ConvNorm(4 * width, width, 1, config)
        nn.init.zeros_(self.reduce.norm.weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.reduce(_activate(self.expand(self.depthwise(x)), self.activation))


class Stage(nn.Module):
    """A first convolution that changes width (and, but for the first stage, halves the map), then residual blocks."""

    def __init__(self, width_in: int, width: int, depth: int, config: ConvNetConfig, first: bool) -> None:
        super().__init__()
        self.activation = config.activation
        self.pooled = not first and config.downsample == "max"
        if first:
            self.enter = ConvNorm(width_in, width, config.stem_kernel, config, stride=config.stem_stride)
        else:
            kernel, stride = {"conv": (3, 2), "patch": (2, 2), "max": (3, 1)}[config.downsample]
            self.enter = ConvNorm(width_in, width, kernel, config, stride=stride)
        block = Basic if config.block == "basic" else Inverted
        self.blocks = nn.Sequential(*(block(width, config) for _ in range(depth)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        x = _activate(self.enter(x), self.activation)
        return self.blocks(F.max_pool2d(x, 2) if self.pooled else x)


class ConvNet(ImageTower):
    """A residual convolutional tower for images of any size. First weights: He's normal for the convolutions,
    each residual branch zero, the projection N(0, 1/width).
    """

    def __init__(self, config: ConvNetConfig, embed_dim: int) -> None:
        super().__init__()
        c = self.config = config
        self.width = c.widths[-1]
        entering = (3, *c.widths[:-1])
        self.stages = nn.Sequential(
            *(
                Stage(width_in, width, depth, c, first=i == 0)
                for i, (width_in, width, depth) in enumerate(zip(entering, c.widths, c.depths, strict=True))
            )
        )
        pooled = self.width * (2 if c.pooling == "mean_max" else 1)
        self.pool_score = nn.Linear(self.width, 1, bias=False) if c.pooling == "attention" else None
        norms = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        self.pool_norm = norms[c.pool_norm](pooled)
        self.projection = build_projection(c.projection, pooled, embed_dim, type(c).__name__)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        x = F.dropout(self.pool_norm(self._pool(self._encode(images))), self.config.dropout, self.training)
        return x if self.projection is None else self.projection(x)

    def tokens(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p d"]:
        return self._encode(images).flatten(2).transpose(1, 2)

    def _encode(self, images: Tensor) -> Tensor:
        if self.training and images.shape[0] < 2 and "batch" in (self.config.norm, self.config.pool_norm):
            raise ConfigError(
                "a batch must hold at least 2 images to train under batch norm; got 1. "
                "Raise micro_batch, or set norm=group and pool_norm=layer."
            )
        return self.stages(
            images.contiguous(memory_format=torch.channels_last) if self.config.channels_last else images
        )

    def _pool(self, x: Tensor) -> Tensor:
        if self.pool_score is not None:
            x = x.flatten(2).transpose(1, 2)  # (b, p, d)
            return (self.pool_score(x).softmax(1) * x).sum(1)
        mean = x.mean((2, 3))
        return mean if self.config.pooling == "mean" else torch.cat([mean, x.amax((2, 3))], dim=1)


def _activate(x: Tensor, kind: Literal["relu", "gelu", "silu"]) -> Tensor:
    if kind == "relu":
        return x.relu()
    return F.gelu(x) if kind == "gelu" else F.silu(x)
