"""The diffusion transformer (Peebles and Xie, 2023, arXiv:2212.09748), told of a text as PixArt's is."""

from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.nn.attention import Attention
from diptych.nn.denoiser import Condition, Denoiser, DenoiserConfig, TwoLayers, time_waves
from diptych.nn.mask import MaskPlan
from diptych.nn.mlp import MLP, Activation
from diptych.nn.norm import NormKind

TIME_WIDTH = 256
"""Waves that a time is written in."""


class DiffusionTransformerConfig(DenoiserConfig):
    """Settings of a diffusion transformer.

    patch_size     side of the squares of the grid that become tokens
    modulation     shift, scale and gate of a block's two halves come from time and vector through a linear map of each
                   "block" (DiT's adaLN-Zero), or through a "single" one for all blocks, to which each adds a table of
                   its own (PixArt: Chen et al. 2023, arXiv:2310.00426, section 2.3)
    qk_norm        RMS norm of each head's queries and keys, which keeps bf16 stable (SD3)
    norm_eps, mlp_norm_eps  of the norms before attention and before the MLP
    time_shift     see `nn.denoiser.time_waves`: 1 for weights of diffusers' DiT
    classes        number of classes with a vector each, and one for none; 0: there are no classes
    learned_variance  the head also answers a variance for each number (public weights of DiT and PixArt do, Nichol and
                   Dhariwal 2021), which is not read
    position_scale coordinates are divided by it (PixArt at 512 pixels: 1, at 1024: 2)
    """

    width: int = Field(default=384, gt=0)
    depth: int = Field(default=12, gt=0)
    heads: int = Field(default=6, gt=0)
    mlp_ratio: float = Field(default=4.0, gt=0)
    activation: Activation = "gelu_tanh"
    patch_size: int = Field(default=2, gt=0)
    modulation: Literal["block", "single"] = "block"
    qk_norm: bool = False
    norm_eps: float = Field(default=1e-6, gt=0)
    mlp_norm_eps: float = Field(default=1e-6, gt=0)
    time_shift: int = Field(default=0, ge=0, le=1)
    classes: int = Field(default=0, ge=0)
    learned_variance: bool = False
    position_scale: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _divides(self) -> "DiffusionTransformerConfig":
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"DiffusionTransformerConfig.width must be a multiple of heads and of 4, for its positions are waves "
                f"in two directions; got width {self.width}, heads {self.heads}."
            )
        return self

    def build(self, channels: int, side: int, context_width: int, vector_width: int) -> "DiffusionTransformer":
        return DiffusionTransformer(self, channels, side, context_width, vector_width)


class ModulatedBlock(nn.Module):
    """x + gate_1 attention(shifted(x)), x + cross_attention(x, text) where there is a text, x + gate_2 mlp(shifted(x)).

    Its norms have no gain of their own: shift and scale are functions of the time. The text is attended to without a
    norm before, as in PixArt.
    """

    recomputable: ClassVar[bool] = True
    """See nn/checkpointing.py."""

    def __init__(self, config: DiffusionTransformerConfig, reads_text: bool) -> None:
        super().__init__()
        c = config
        qk: NormKind | None = "rms" if c.qk_norm else None
        self.norm_1 = nn.LayerNorm(c.width, eps=c.norm_eps, elementwise_affine=False)
        self.attention = Attention(c.width, c.heads, qk_norm=qk)
        self.cross_attention = Attention(c.width, c.heads, qk_norm=qk) if reads_text else None
        self.norm_2 = nn.LayerNorm(c.width, eps=c.mlp_norm_eps, elementwise_affine=False)
        self.mlp = MLP(c.width, round(c.width * c.mlp_ratio), c.activation)
        single = c.modulation == "single"
        self.modulation = None if single else nn.Linear(c.width, 6 * c.width)
        self.table = nn.Parameter(torch.randn(6, c.width) / c.width**0.5) if single else None

    def forward(
        self,
        x: Float[Tensor, "b p d"],
        told: Float[Tensor, "b d"] | Float[Tensor, "b f"],
        context: Float[Tensor, "b s d"] | None = None,
        context_mask: MaskPlan | None = None,
    ) -> Float[Tensor, "b p d"]:
        """`told`: the vector of time and condition after its nonlinearity, or, with one map for all blocks, what that
        map makes of it (f = 6 d)."""
        six = told if self.modulation is None else self.modulation(told)
        six = six.unflatten(-1, (6, -1))  # (b, 6, d)
        if self.table is not None:
            six = six + self.table
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = six[:, :, None].unbind(1)  # (b, 1, d) each
        x = x + gate_1 * self.attention(self.norm_1(x) * (1 + scale_1) + shift_1)
        if self.cross_attention is not None and context is not None:
            x = x + self.cross_attention(x, context_mask, context)
        return x + gate_2 * self.mlp(self.norm_2(x) * (1 + scale_2) + shift_2)


class DiffusionTransformer(Denoiser):
    """Patches with fixed positions, modulated blocks, a modulated norm and a linear map to patches.

    First weights: linear maps Xavier-uniform; what gates or ends a branch is zero (modulation, the cross-attention's
    and the network's last map), so that blocks begin as the identity and the answer as zero.
    """

    def __init__(
        self, config: DiffusionTransformerConfig, channels: int, side: int, context_width: int, vector_width: int
    ) -> None:
        super().__init__()
        c = self.config = config
        if side % c.patch_size:
            raise ConfigError(
                f"the side of what is denoised must be a multiple of patch_size; got {side} and {c.patch_size}. "
                "Change patch_size, the resolution or the codec."
            )
        self.width, self.channels, self.side = c.width, channels, side // c.patch_size
        self.patch_embed = nn.Conv2d(channels, c.width, c.patch_size, stride=c.patch_size)
        self.register_buffer("positions", self._positions(self.side, self.side), persistent=False)
        self.time_embed = TwoLayers(TIME_WIDTH, c.width)
        self.vector_embed = TwoLayers(vector_width, c.width) if vector_width else None
        self.class_embed = nn.Embedding(c.classes + 1, c.width) if c.classes else None
        self.context_embed = TwoLayers(context_width, c.width, "gelu_tanh") if context_width else None
        single = c.modulation == "single"
        self.modulation = nn.Linear(c.width, 6 * c.width) if single else None
        self.blocks = nn.ModuleList(ModulatedBlock(c, context_width > 0) for _ in range(c.depth))
        self.norm_final = nn.LayerNorm(c.width, eps=1e-6, elementwise_affine=False)
        self.modulation_final = None if single else nn.Linear(c.width, 2 * c.width)
        self.table_final = nn.Parameter(torch.randn(2, c.width) / c.width**0.5) if single else None
        self.head = nn.Linear(c.width, c.patch_size**2 * channels * (2 if c.learned_variance else 1))
        self._draw_first_weights()

    positions: Tensor

    def forward(
        self, x: Float[Tensor, "b c r k"], times: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b c r k"]:
        told, grid = self._told(times, condition), self._grid(x)
        x = self._through(self._embed(x), told, condition, len(self.blocks))
        if self.modulation_final is not None:
            shift, scale = self.modulation_final(F.silu(told)).unflatten(-1, (2, -1))[:, :, None].unbind(1)
        else:
            assert self.table_final is not None
            shift, scale = (self.table_final + told[:, None]).unsqueeze(2).unbind(1)
        x = self.head(self.norm_final(x) * (1 + scale) + shift)  # (b, p, side * side * c)
        side = self.config.patch_size
        x = x.unflatten(2, (side, side, -1)).unflatten(1, grid)  # (b, rows, columns, side, side, c)
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)[:, : self.channels]

    def tokens(
        self, x: Float[Tensor, "b c r k"], times: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b p d"]:
        return self._through(self._embed(x), self._told(times, condition), condition, (len(self.blocks) + 1) // 2)

    def _grid(self, x: Tensor) -> tuple[int, int]:
        return x.shape[2] // self.config.patch_size, x.shape[3] // self.config.patch_size

    def _positions(self, rows: int, columns: int) -> Tensor:
        return grid_waves(rows, columns, self.width, self.side, self.config.position_scale)

    def _embed(self, x: Tensor) -> Tensor:
        rows, columns = self._grid(x)
        table = self.positions
        if (rows, columns) != (self.side, self.side):
            table = self._positions(rows, columns).to(x.device)
        return self.patch_embed(x).flatten(2).transpose(1, 2) + table

    def _told(self, times: Tensor, condition: Condition) -> Tensor:
        """The vector of time, class and text, before its nonlinearity."""
        told = self.time_embed(time_waves(times, TIME_WIDTH, self.config.time_shift))
        if self.vector_embed is not None and condition.vector is not None:
            told = told + self.vector_embed(condition.vector)
        if self.class_embed is not None and condition.labels is not None:
            told = told + self.class_embed(condition.labels)
        return told

    def _through(self, x: Tensor, told: Tensor, condition: Condition, depth: int) -> Tensor:
        told = F.silu(told)
        told = told if self.modulation is None else self.modulation(told)
        context = None
        if self.context_embed is not None and condition.tokens is not None:
            context = self.context_embed(condition.tokens)
        mask = condition.mask()
        for block in self.blocks[:depth]:
            x = block(x, told, context, mask)
        return x

    @torch.no_grad()
    def _draw_first_weights(self) -> None:
        for linear in (m for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.xavier_uniform_(self.patch_embed.weight.flatten(1))
        assert self.patch_embed.bias is not None
        nn.init.zeros_(self.patch_embed.bias)
        draw = partial(nn.init.normal_, std=0.02)
        for two in filter(None, (self.time_embed, self.vector_embed, self.context_embed)):
            draw(two.fc_1.weight)
            draw(two.fc_2.weight)
        if self.class_embed is not None:
            draw(self.class_embed.weight)
        if self.modulation is not None:
            draw(self.modulation.weight)
        ends: list[nn.Linear | None] = [self.head, self.modulation_final]
        for block in self.blocks:
            assert isinstance(block, ModulatedBlock)
            ends += [block.modulation, None if block.cross_attention is None else block.cross_attention.out_proj]
        for linear in filter(None, ends):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)


def grid_waves(rows: int, columns: int, width: int, side: int, scale: float = 1.0) -> Float[Tensor, "p {width}"]:
    """Fixed positions of a grid, row by row: sines and cosines of the column, then of the row (MAE, DiT), in float64.

    Whatever its number of cells, a side is `side` places long, in units of `scale`: larger grids lie closer.
    """
    steps = torch.arange(width // 4, dtype=torch.float64)
    frequencies = 10_000 ** (-steps / (width // 4))

    def waves(count: int) -> Tensor:
        places = torch.arange(count, dtype=torch.float64) * (side / count / scale)
        angles = places[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (count, width / 2)

    down, across = waves(rows), waves(columns)
    grid = torch.cat([across.expand(rows, -1, -1), down[:, None].expand(-1, columns, -1)], dim=2)
    return grid.flatten(0, 1).float()
