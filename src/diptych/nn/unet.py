"""The U-Net of latent diffusion (Rombach et al., 2022, arXiv:2112.10752): residual convolutions on a pyramid of scales,
with attention to itself and to a text where the scale says so."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.nn.attention import Attention
from diptych.nn.denoiser import Condition, Denoiser, DenoiserConfig, TwoLayers, time_waves
from diptych.nn.mask import MaskPlan


class UNetConfig(DenoiserConfig):
    """Settings of a U-Net.

    widths    channels of each scale, each half the side of the one before
    depth     residual blocks a scale on the way down, one more on the way up
    attends   at which scales tokens attend to each other and to the text, as the smallest always does once more
    heads     of all attentions
    groups    of the group norms; must divide all widths
    linear_projection  whether maps around attention are linear (Stable Diffusion 2) or 1 x 1 convolutions: the same
              function, kept in another shape
    """

    widths: tuple[int, ...] = (64, 128, 192)
    depth: int = Field(default=1, gt=0)
    attends: tuple[bool, ...] = (False, True, True)
    heads: int = Field(default=4, gt=0)
    groups: int = Field(default=8, gt=0)
    norm_eps: float = Field(default=1e-5, gt=0)
    linear_projection: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "UNetConfig":
        if len(self.attends) != len(self.widths) or not self.widths:
            raise ValueError(
                f"UNetConfig.attends must say yes or no for each of the widths; got {self.attends} for {self.widths}."
            )
        if any(w % self.groups or w % self.heads for w in self.widths):
            raise ValueError(
                f"UNetConfig.widths must be multiples of groups ({self.groups}) and of heads ({self.heads}); got "
                f"{self.widths}. Change any of them."
            )
        return self

    def build(self, channels: int, side: int, context_width: int, vector_width: int) -> "UNet":
        return UNet(self, channels, side, context_width, vector_width)


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + time))), x through a 1 x 1 convolution where its width changes."""

    recomputable: ClassVar[bool] = True
    """See nn/checkpointing.py."""

    def __init__(self, width_in: int, width: int, time_width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm_1 = nn.GroupNorm(groups, width_in, eps)
        self.conv_1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.time = nn.Linear(time_width, width)
        self.norm_2 = nn.GroupNorm(groups, width, eps)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = None if width_in == width else nn.Conv2d(width_in, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"], told: Float[Tensor, "b e"]) -> Float[Tensor, "b d h w"]:
        """`told` is the vector of the time, after its nonlinearity."""
        y = self.conv_1(F.silu(self.norm_1(x))) + self.time(told)[:, :, None, None]
        y = self.conv_2(F.silu(self.norm_2(y)))
        return (x if self.shortcut is None else self.shortcut(x)) + y


class Reader(nn.Module):
    """A transformer block over the places of a map: attention to each other, to the text, and a gated MLP (GEGLU:
    Shazeer, 2020), between a norm and a map in, a map out and the way around all of it."""

    recomputable: ClassVar[bool] = True
    """See nn/checkpointing.py."""

    def __init__(self, width: int, heads: int, context_width: int, groups: int, linear: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.proj_in, self.proj_out = _map(width, linear), _map(width, linear)
        self.norm_1, self.norm_2, self.norm_3 = (nn.LayerNorm(width) for _ in range(3))
        self.attention = _attention(width, heads, None)
        self.cross_attention = _attention(width, heads, context_width) if context_width else None
        self.fc_1, self.fc_2 = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(
        self,
        x: Float[Tensor, "b d h w"],
        context: Float[Tensor, "b s c"] | None = None,
        mask: MaskPlan | None = None,
    ) -> Float[Tensor, "b d h w"]:
        y = self.norm(x).flatten(2).transpose(1, 2)  # (b, p, d)
        y = F.linear(y, self.proj_in.weight.flatten(1), self.proj_in.bias)
        y = y + self.attention(self.norm_1(y))
        if self.cross_attention is not None and context is not None:
            y = y + self.cross_attention(self.norm_2(y), mask, context)
        inner, gate = self.fc_1(self.norm_3(y)).chunk(2, dim=-1)
        y = y + self.fc_2(inner * F.gelu(gate))
        y = F.linear(y, self.proj_out.weight.flatten(1), self.proj_out.bias)
        return x + y.transpose(1, 2).unflatten(2, x.shape[2:])


class Stage(nn.Module):
    """The blocks of one scale, each followed by a reader where the scale attends, and the way to the next scale."""

    def __init__(self, residuals: list[Residual], readers: list[Reader], resize: nn.Conv2d | None) -> None:
        super().__init__()
        self.residuals, self.readers = nn.ModuleList(residuals), nn.ModuleList(readers)
        self.resize = resize

    def block(self, i: int, x: Tensor, told: Tensor, context: Tensor | None, mask: MaskPlan | None) -> Tensor:
        """The i-th block, and its reader where it has one."""
        x = self.residuals[i](x, told)
        return self.readers[i](x, context, mask) if i < len(self.readers) else x


class UNet(Denoiser):
    """Down through the scales, through the middle, and up again with what each block on the way down has left.

    The text's tokens are attended to as they are; its vector is added to the time's. The last convolution begins at
    zero, so that the first answer is none.
    """

    def __init__(self, config: UNetConfig, channels: int, side: int, context_width: int, vector_width: int) -> None:
        super().__init__()
        c = self.config = config
        if side % 2 ** (len(c.widths) - 1):
            raise ConfigError(
                f"the side of what is denoised must be a multiple of {2 ** (len(c.widths) - 1)}, for it is halved "
                f"{len(c.widths) - 1} times; got {side}. Give fewer widths, or another resolution."
            )
        self.channels, self.width = channels, c.widths[-1]
        told = 4 * c.widths[0]
        self.conv_in = nn.Conv2d(channels, c.widths[0], 3, padding=1)
        self.time_embed = TwoLayers(c.widths[0], told)
        self.vector_embed = TwoLayers(vector_width, told) if vector_width else None

        def residual(width_in: int, width: int) -> Residual:
            return Residual(width_in, width, told, c.groups, c.norm_eps)

        def reader(width: int) -> Reader:
            return Reader(width, c.heads, context_width, c.groups, c.linear_projection)

        kept, x, down = [c.widths[0]], c.widths[0], []
        for i, width in enumerate(c.widths):
            last = i == len(c.widths) - 1
            blocks = [residual(x if n == 0 else width, width) for n in range(c.depth)]
            readers = [reader(width) for _ in range(c.depth)] if c.attends[i] else []
            down.append(Stage(blocks, readers, None if last else nn.Conv2d(width, width, 3, stride=2, padding=1)))
            kept += [width] * (c.depth if last else c.depth + 1)
            x = width
        self.middle = Stage([residual(x, x), residual(x, x)], [reader(x)], None)
        up = []
        for i, width in reversed(list(enumerate(c.widths))):
            blocks = []
            for _ in range(c.depth + 1):
                blocks.append(residual(x + kept.pop(), width))
                x = width
            readers = [reader(width) for _ in blocks] if c.attends[i] else []
            up.append(Stage(blocks, readers, nn.Conv2d(width, width, 3, padding=1) if i else None))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.norm_out = nn.GroupNorm(c.groups, c.widths[0], c.norm_eps)
        self.conv_out = nn.Conv2d(c.widths[0], channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        assert self.conv_out.bias is not None
        nn.init.zeros_(self.conv_out.bias)

    def forward(
        self, x: Float[Tensor, "b c r k"], times: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b c r k"]:
        told, mask, context = self._told(times, condition), condition.mask(), condition.tokens
        x, left = self._down(x, told, condition)
        x = self._through_middle(x, told, condition)
        for stage in self.up:
            assert isinstance(stage, Stage)
            for i in range(len(stage.residuals)):
                x = stage.block(i, torch.cat([x, left.pop()], dim=1), told, context, mask)
            if stage.resize is not None:
                x = stage.resize(F.interpolate(x, scale_factor=2.0))
        return self.conv_out(F.silu(self.norm_out(x)))

    def tokens(
        self, x: Float[Tensor, "b c r k"], times: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b p d"]:
        told = self._told(times, condition)
        x = self._through_middle(self._down(x, told, condition)[0], told, condition)
        return x.flatten(2).transpose(1, 2)

    def _told(self, times: Tensor, condition: Condition) -> Tensor:
        told = self.time_embed(time_waves(times, self.config.widths[0]))
        if self.vector_embed is not None and condition.vector is not None:
            told = told + self.vector_embed(condition.vector)
        return F.silu(told)

    def _down(self, x: Tensor, told: Tensor, condition: Condition) -> tuple[Tensor, list[Tensor]]:
        """The smallest map, and what each block has left for the way up."""
        mask, x = condition.mask(), self.conv_in(x)
        left = [x]
        for stage in self.down:
            assert isinstance(stage, Stage)
            for i in range(len(stage.residuals)):
                x = stage.block(i, x, told, condition.tokens, mask)
                left.append(x)
            if stage.resize is not None:
                x = stage.resize(x)
                left.append(x)
        return x, left

    def _through_middle(self, x: Tensor, told: Tensor, condition: Condition) -> Tensor:
        for i in (0, 1):
            x = self.middle.block(i, x, told, condition.tokens, condition.mask())
        return x


def _map(width: int, linear: bool) -> nn.Linear | nn.Conv2d:
    """Place by place."""
    return nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)


def _attention(width: int, heads: int, context_width: int | None) -> Attention:
    """Queries, keys and values without bias, and a map out with one."""
    found = Attention(width, heads, bias=False, context_width=context_width)
    found.out_proj = nn.Linear(width, width)
    return found
