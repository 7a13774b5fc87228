"""What every denoiser is: a network that looks at a noised grid, is told the time and a text, and foresees a grid."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diptych.core.config import Config
from diptych.nn.mask import Layout, MaskPlan, padding


class Condition(NamedTuple):
    """What a denoiser is told of the picture; None: nothing of that kind.

    tokens   what is attended to, of which each row's first `lengths` count (None: all)
    vector   one vector for the whole, which goes with the time
    labels   numbers of classes, of a denoiser that has classes
    """

    tokens: Float[Tensor, "b s c"] | None = None
    lengths: Int64[Tensor, " b"] | None = None
    vector: Float[Tensor, "b e"] | None = None
    labels: Int64[Tensor, " b"] | None = None

    def mask(self) -> MaskPlan | None:
        """Which of `tokens` may be seen."""
        if self.tokens is None or self.lengths is None:
            return None
        keys = Layout.of_lengths(self.lengths, self.tokens.shape[1])
        return padding().plan(Layout.plain(1, self.tokens.device), keys)

    def take(self, rows: Int64[Tensor, " n"]) -> "Condition":
        """Some of the rows, in any order."""
        return Condition(*(None if x is None else x[rows] for x in self))


class DenoiserConfig(Config):
    """Base of every denoiser's settings."""

    abstract: ClassVar[bool] = True

    def build(self, channels: int, side: int, context_width: int, vector_width: int) -> "Denoiser":
        """The denoiser of grids (channels, side, side); widths of what it is told, 0: it is told nothing of it."""
        raise NotImplementedError


class Denoiser(nn.Module, ABC):
    """Maps a noised grid, its time (0..1000, real) and a condition to a grid of that shape. `width`: of its tokens."""

    width: int

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "b c r k"], times: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b c r k"]: ...

    @abstractmethod
    def tokens(
        self, x: Float[Tensor, "b c r k"], times: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b p d"]:
        """Hidden states in the middle of the network, place by place."""

    def decay_free(self) -> set[str]:
        """Names (relative to this denoiser) of parameters of two or more dimensions that must not be decayed."""
        return set()


class TwoLayers(nn.Module):
    """fc_2(activation(fc_1 x)) from one width to another: what is told to a denoiser comes in through such."""

    def __init__(self, width_in: int, width: int, activation: Literal["silu", "gelu_tanh"] = "silu") -> None:
        super().__init__()
        self.activation = activation
        self.fc_1, self.fc_2 = nn.Linear(width_in, width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "*s c"]) -> Float[Tensor, "*s d"]:
        x = self.fc_1(x)
        return self.fc_2(F.silu(x) if self.activation == "silu" else F.gelu(x, approximate="tanh"))


def time_waves(times: Float[Tensor, " b"], width: int, shift: int = 0) -> Float[Tensor, "b {width}"]:
    """Cosines, then sines, of the times at falling frequencies 10,000^(-j / (width/2 - shift)) (Ho et al. 2020).

    `shift` is 0 in DiT's and latent diffusion's code and 1 in DDPM's, and in diffusers' DiT.
    """
    half = width // 2
    steps = torch.arange(half, device=times.device, dtype=torch.float32)
    angles = times.float()[:, None] * torch.exp(-math.log(10_000) * steps / (half - shift))
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))
