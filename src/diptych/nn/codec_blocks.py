"""The convolutional encoder and decoder of VQGAN and of KL autoencoders (Esser et al., 2021, arXiv:2012.09841)."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.config import Config

EPS = 1e-6
"""Of all norms here."""


class ConvCodecConfig(Config):
    """Settings of the two stacks, which mirror each other.

    width        channels at the first level
    multipliers  of `width`, a level each; between two levels the map is halved
    depth        residual blocks of a level of the encoder; the decoder has one more
    attention    levels (0 the first) whose residual blocks are each followed by attention
    middle       at the last level: "none"; "blocks": two residual blocks; "attention": with attention between them
    groups       of each group norm
    patch        side of the squares of pixels that are the first level's places: 1 in the papers; 4 is sixteen times
                 cheaper, for small machines
    """

    width: int = Field(default=128, gt=0)
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    depth: int = Field(default=2, gt=0)
    attention: tuple[int, ...] = ()
    middle: Literal["none", "blocks", "attention"] = "attention"
    groups: int = Field(default=32, gt=0)
    patch: int = Field(default=1, gt=0)

    @model_validator(mode="after")
    def _levels_agree(self) -> "ConvCodecConfig":
        if not self.multipliers or min(self.multipliers) < 1 or self.width % self.groups:
            raise ValueError(
                f"{type(self).__name__}.multipliers must name levels by whole numbers from 1, and groups divide width; "
                f"got {self.multipliers}, width {self.width}, groups {self.groups}. VQGAN has (1, 1, 2, 2, 4), 128, 32."
            )
        if any(not 0 <= level < len(self.multipliers) for level in self.attention):
            raise ValueError(
                f"{type(self).__name__}.attention must name levels from 0 to {len(self.multipliers) - 1}; got "
                f"{self.attention}. Give multipliers a level more, or leave it out."
            )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * m for m in self.multipliers)

    @property
    def stride(self) -> int:
        """Pixels a place of the latents."""
        return self.patch * 2 ** (len(self.multipliers) - 1)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm x))))); a 1x1 convolution where the width changes."""

    recomputable: ClassVar[bool] = True
    """See nn/checkpointing.py."""

    def __init__(self, width_in: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm_1 = nn.GroupNorm(groups, width_in, EPS)
        self.conv_1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm_2 = nn.GroupNorm(groups, width, EPS)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        y = self.conv_1(F.silu(self.norm_1(x)))
        y = self.conv_2(F.silu(self.norm_2(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class MapAttention(nn.Module):
    """x + attention, with one head, of all places of a map to all."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, EPS)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        y = self.norm(x).flatten(2).transpose(1, 2)  # (b, p, c)
        y = F.scaled_dot_product_attention(*(f(y)[:, None] for f in (self.q_proj, self.k_proj, self.v_proj)))[:, 0]
        return x + self.out_proj(y).transpose(1, 2).unflatten(2, x.shape[2:])


class Level(nn.Module):
    """Residual blocks at one side, attention behind each where it has any."""

    def __init__(self, width_in: int, width: int, depth: int, groups: int, attends: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(width_in if i == 0 else width, width, groups) for i in range(depth))
        self.attentions = nn.ModuleList(MapAttention(width, groups) for _ in range(depth if attends else 0))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        for i, block in enumerate(self.blocks):
            x = block(x)
            x = self.attentions[i](x) if len(self.attentions) else x
        return x


class Middle(nn.Module):
    """Two residual blocks, with attention between them or without."""

    def __init__(self, width: int, groups: int, attends: bool) -> None:
        super().__init__()
        self.block_1, self.block_2 = (ResBlock(width, width, groups) for _ in range(2))
        self.attention = MapAttention(width, groups) if attends else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.block_2(self.attention(self.block_1(x)))


class ConvEncoder(nn.Module):
    """Pixels of -1..1 to a map of `out` channels, `stride` times smaller."""

    def __init__(self, config: ConvCodecConfig, out: int) -> None:
        super().__init__()
        c = config
        self.patch, widths = c.patch, c.widths
        self.conv_in = nn.Conv2d(3 * c.patch**2, widths[0], 3, padding=1)
        entering = (widths[0], *widths[:-1])
        self.levels = nn.ModuleList(
            Level(a, b, c.depth, c.groups, i in c.attention)
            for i, (a, b) in enumerate(zip(entering, widths, strict=True))
        )
        self.downsamples = nn.ModuleList(nn.Conv2d(w, w, 3, stride=2) for w in widths[:-1])
        self.middle = _middle(c)
        self.norm_out = nn.GroupNorm(c.groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c r k"]:
        x = self.conv_in(F.pixel_unshuffle(images, self.patch))
        for i, level in enumerate(self.levels):
            x = level(x)
            if i < len(self.downsamples):
                x = self.downsamples[i](F.pad(x, (0, 1, 0, 1)))  # zeros right and below alone, as VQGAN has it
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))


class ConvDecoder(nn.Module):
    """A map of `channels` to pixels of about -1..1, `stride` times larger. Its first level is the smallest map."""

    def __init__(self, config: ConvCodecConfig, channels: int) -> None:
        super().__init__()
        c = config
        self.patch, widths = c.patch, c.widths[::-1]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.middle = _middle(c)
        entering = (widths[0], *widths[:-1])
        self.levels = nn.ModuleList(
            Level(a, b, c.depth + 1, c.groups, last - i in c.attention)
            for i, (a, b) in enumerate(zip(entering, widths, strict=True))
        )
        self.upsamples = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in widths[:-1])
        self.norm_out = nn.GroupNorm(c.groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 3 * c.patch**2, 3, padding=1)

    def forward(self, latents: Float[Tensor, "b c r k"]) -> Float[Tensor, "b 3 h w"]:
        x = self.middle(self.conv_in(latents))
        for i, level in enumerate(self.levels):
            x = level(x)
            if i < len(self.upsamples):
                x = self.upsamples[i](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.patch)


def multiscale_error(
    found: Float[Tensor, "b 3 h w"], wanted: Float[Tensor, "b 3 h w"], scales: int = 1, squared: bool = False
) -> Float[Tensor, " b"]:
    """The mean absolute (or squared) difference of each pair of images, averaged over `scales`: the images as they are,
    and each time halved by the mean of 2 x 2 pixels. Edges count at the first, areas' colours at all."""
    difference, errors = found - wanted, []
    for scale in range(scales):
        difference = difference if scale == 0 else F.avg_pool2d(difference, 2)  # it is linear: the same as of each
        errors.append((difference.square() if squared else difference.abs()).mean((1, 2, 3)))
    return torch.stack(errors).mean(0)


def _middle(c: ConvCodecConfig) -> nn.Module:
    return nn.Identity() if c.middle == "none" else Middle(c.widths[-1], c.groups, c.middle == "attention")
