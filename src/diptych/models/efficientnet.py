"""EfficientNet (Tan and Le, 2019, arXiv:1905.11946) and its Lite form, padded and normalised as TensorFlow does it."""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.models.tower import ImageTower, ImageTowerConfig
from diptych.nn.pool import Projection, build_projection

DIVISOR = 8
"""Scaled widths are multiples of it."""

Act = Literal["silu", "relu6"]

EfficientNetSize = Literal["lite0", "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "l2"]
SIZES: dict[EfficientNetSize, tuple[float, float, int]] = {
    "lite0": (1.0, 1.0, 224),
    "b0": (1.0, 1.0, 224),
    "b1": (1.0, 1.1, 240),
    "b2": (1.1, 1.2, 260),
    "b3": (1.2, 1.4, 300),
    "b4": (1.4, 1.8, 380),
    "b5": (1.6, 2.2, 456),
    "b6": (1.8, 2.6, 528),
    "b7": (2.0, 3.1, 600),
    "l2": (4.3, 5.3, 800),
}
"""Width and depth multipliers of each EfficientNet, and the side of the images that it was first trained on (Tan and
Le, 2019; L2: Xie et al., 2020, arXiv:1911.04252)."""


class EfficientNetConfig(ImageTowerConfig):
    """Settings of an EfficientNet, by default B0's (`named` gives the others). A tuple has one value a stage.

    widths, depths    channels and blocks of each stage, before the multipliers
    kernels, strides  of each stage's depthwise convolutions; the stride is its first block's
    expansions        how many times wider a block is inside
    width_multiplier  of all widths, rounded to multiples of 8 (B7: 2.0)
    depth_multiplier  of all depths, rounded up (B7: 3.1)
    head_width        of a last 1x1 convolution, multiplied too; 0: none (ALIGN)
    squeeze           width inside squeeze-and-excitation, as a share of its block's input; 0: none (Lite)
    activation        "silu" (also called swish); "relu6" (Lite)
    fixed_ends        the multipliers leave alone the widths of stem and head, the depths of first and last stage (Lite)
    padding           "same" is TensorFlow's; "even" pads every map as if its sides were even, as a Keras model does
                      that was built without knowing them (ALIGN's public weights, at 289 pixels)
    drop_path         chance that a block is skipped, at the last one; it grows linearly from 0 at the first
    dropout           on the pooled vector, in training
    channels_last     memory format of the convolutions: the same function, faster on most hardware
    pretrained        packaged weights that a run starts from ("efficientnet_lite0"); empty: fresh ones
    """

    widths: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    depths: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    kernels: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expansions: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    width_multiplier: float = Field(default=1.0, gt=0)
    depth_multiplier: float = Field(default=1.0, gt=0)
    stem_width: int = Field(default=32, gt=0)
    stem_stride: int = Field(default=2, gt=0)
    head_width: int = Field(default=1280, ge=0)
    squeeze: float = Field(default=0.25, ge=0, le=1)
    activation: Act = "silu"
    fixed_ends: bool = False
    padding: Literal["same", "even"] = "same"
    norm_eps: float = Field(default=1e-3, gt=0)
    norm_momentum: float = Field(default=0.01, gt=0, le=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    projection: Projection = "linear"
    channels_last: bool = True
    pretrained: str = ""

    @model_validator(mode="after")
    def _stages_agree(self) -> "EfficientNetConfig":
        tuples = ("widths", "depths", "kernels", "strides", "expansions")
        counts = {name: len(getattr(self, name)) for name in tuples}
        if set(counts.values()) != {len(self.widths)} or not self.widths:
            raise ValueError(
                f"EfficientNetConfig's {', '.join(tuples)} must name the same stages, at least one; got "
                f"{', '.join(str(n) for n in counts.values())} values. Give each stage one of each."
            )
        if min(min(getattr(self, name)) for name in tuples) < 1 or any(k % 2 == 0 for k in self.kernels):
            raise ValueError(
                f"EfficientNetConfig's {', '.join(tuples)} must be positive and kernels odd; got "
                f"{', '.join(str(getattr(self, name)) for name in tuples)}."
            )
        return self

    @classmethod
    def named(cls, size: EfficientNetSize) -> "EfficientNetConfig":
        """An EfficientNet by its published name. Its head is 1280 wide in B0, so L2's is 5504."""
        if size == "lite0":
            return cls(squeeze=0.0, activation="relu6", fixed_ends=True)
        width, depth, _ = SIZES[size]
        return cls(width_multiplier=width, depth_multiplier=depth)

    def build(self, resolution: int, embed_dim: int) -> "EfficientNet":
        return EfficientNet(self, embed_dim)


def round_width(width: int, multiplier: float) -> int:
    """`width` times `multiplier`, rounded to a multiple of 8, at least 8 and never down by more than a tenth."""
    wanted = width * multiplier
    rounded = max(DIVISOR, int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded + DIVISOR if rounded < 0.9 * wanted else rounded


def pad_same(x: Float[Tensor, "b c h w"], kernel: int, stride: int, even: bool = False) -> Float[Tensor, "b c i j"]:
    """Zeros around a map, so that a convolution returns ceil(side / stride) places, the odd zero at the end.

    TensorFlow's rule, by which strided convolutions of even sides are not centred as torch's are. `even`: as if the
    sides were multiples of the stride.
    """
    sides: list[int] = []
    for n in (x.shape[3], x.shape[2]):
        total = max(kernel - stride if even else (-(-n // stride) - 1) * stride + kernel - n, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides) if any(sides) else x


class ConvNorm(nn.Module):
    """A convolution without bias, padded as `pad_same` does, and a batch norm.

    A convolution of single channels with a stride runs in float32 on a CPU, whatever the autocast: its backward in
    bfloat16 takes 4 to 25 times as long there (measured with torch 2.13 on one thread).
    """

    def __init__(
        self, width_in: int, width: int, kernel: int, config: EfficientNetConfig, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.even = kernel, stride, config.padding == "even"
        self.wide_on_cpu = stride > 1 and groups > 1
        padding = kernel // 2 if stride == 1 else 0  # without a stride, both rules are torch's own
        self.conv = nn.Conv2d(width_in, width, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width, eps=config.norm_eps, momentum=config.norm_momentum)
        # He et al., 2015; a depthwise kernel feeds one channel, so its fan-out is its size
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out" if groups == 1 else "fan_in", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        if self.stride > 1:
            x = pad_same(x, self.kernel, self.stride, self.even)
        if self.wide_on_cpu and x.device.type == "cpu" and x.dtype == torch.bfloat16:
            with torch.autocast("cpu", enabled=False):
                return self.norm(self.conv(x.float())).to(x.dtype)
        return self.norm(self.conv(x))


class Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al., 2018): each channel times a gate that the mean of the whole map decides."""

    def __init__(self, width: int, inner: int, activation: Act) -> None:
        super().__init__()
        self.activation: Act = activation
        self.reduce, self.expand = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        gate = self.expand(_activate(self.reduce(x.mean((2, 3), keepdim=True)), self.activation))
        return x * gate.sigmoid()


class MBConv(nn.Module):
    """Widen, convolve each channel by itself, gate, narrow (Sandler et al., 2018); all but a stage's first block, which
    changes width or size, add their input. `rate` is the chance that they add nothing else.
    """

    recomputable: ClassVar[bool] = True

    def __init__(
        self,
        width_in: int,
        width: int,
        kernel: int,
        stride: int,
        expansion: int,
        config: EfficientNetConfig,
        first: bool,
        rate: float = 0.0,
    ) -> None:
        super().__init__()
        inner = width_in * expansion
        self.activation: Act = config.activation
        self.first, self.rate = first, rate
        self.expand = ConvNorm(width_in, inner, 1, config) if expansion > 1 else None
        self.depthwise = ConvNorm(inner, inner, kernel, config, stride, groups=inner)
        squeezed = max(1, int(width_in * config.squeeze))
        self.squeeze = Squeeze(inner, squeezed, config.activation) if config.squeeze else None
        self.project = ConvNorm(inner, width, 1, config)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        y = x if self.expand is None else _activate(self.expand(x), self.activation)
        y = _activate(self.depthwise(y), self.activation)
        y = self.project(y if self.squeeze is None else self.squeeze(y))
        if self.first:
            return y
        if self.training and self.rate > 0:
            kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= self.rate
            y = y * (kept / (1.0 - self.rate)).to(y.dtype)
        return x + y


class EfficientNet(ImageTower):
    """An EfficientNet for images of any size: stem, blocks, head, the mean of the places, projection.

    First weights follow TensorFlow's code: convolutions N(0, 2 / fan-out), norms at one; the projection N(0, 1/width).
    """

    def __init__(self, config: EfficientNetConfig, embed_dim: int) -> None:
        super().__init__()
        c = self.config = config
        ends = 1.0 if c.fixed_ends else c.width_multiplier
        width = round_width(c.stem_width, ends)
        self.stem = ConvNorm(3, width, 3, c, stride=c.stem_stride)
        depths, last = [math.ceil(d * c.depth_multiplier) for d in c.depths], len(c.depths) - 1
        if c.fixed_ends:
            depths[0], depths[last] = c.depths[0], c.depths[last]
        blocks: list[MBConv] = []
        for stage, depth in enumerate(depths):
            out = round_width(c.widths[stage], c.width_multiplier)
            for i in range(depth):
                stride, rate = c.strides[stage] if i == 0 else 1, c.drop_path * len(blocks) / sum(depths)
                blocks.append(MBConv(width, out, c.kernels[stage], stride, c.expansions[stage], c, i == 0, rate))
                width = out
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(width, round_width(c.head_width, ends), 1, c) if c.head_width else None
        self.width = width if self.head is None else round_width(c.head_width, ends)
        self.projection = build_projection(c.projection, self.width, embed_dim, type(c).__name__)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        x = F.dropout(self._encode(images).mean((2, 3)), self.config.dropout, self.training)
        return x if self.projection is None else self.projection(x)

    def tokens(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p d"]:
        return self._encode(images).flatten(2).transpose(1, 2)

    def _encode(self, images: Tensor) -> Tensor:
        if self.training and images.shape[0] < 2:
            raise ConfigError(
                "a batch must hold at least 2 images to train under batch norm; got 1. Raise micro_batch, or freeze "
                "the tower."
            )
        x = images.contiguous(memory_format=torch.channels_last) if self.config.channels_last else images
        x = self.blocks(_activate(self.stem(x), self.config.activation))
        return x if self.head is None else _activate(self.head(x), self.config.activation)


def _activate(x: Tensor, kind: Act) -> Tensor:
    return F.silu(x) if kind == "silu" else F.relu6(x)
