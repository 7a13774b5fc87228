"""The vision transformer of CLIP and SigLIP (Dosovitskiy et al., 2021; Radford et al., 2021; Zhai et al., 2023)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.models.tower import ImageTower, ImageTowerConfig
from diptych.nn.block import BlockConfig, build_blocks, init_default, through_blocks
from diptych.nn.embed import PatchEmbed, patch_dropout, resize_position_embed
from diptych.nn.norm import build_norm
from diptych.nn.patch_masking import hide_pixels
from diptych.nn.pool import MapPool, Projection, build_projection


class VisionTransformerConfig(ImageTowerConfig, BlockConfig):
    """Settings of a vision transformer; the block's are among them.

    pooling        "cls": a learned token (CLIP); "mean" of the patches; "map": attention by a probe (SigLIP)
    norm_pre       a norm between embedding and blocks (CLIP)
    patch_bias     whether the patch embedding has a bias (SigLIP)
    projection     "none" needs width equal to the model's embed_dim (SigLIP)
    patch_dropout  share of patches left out in training (FLIP); the CLS token always stays
    mask_token     a learned vector in the place of hidden patches' embeddings, before positions are added (BEiT)
    """

    width: int = Field(default=768, gt=0)
    depth: int = Field(default=12, ge=0)
    heads: int = Field(default=12, gt=0)
    patch_size: int = Field(default=16, gt=0)
    pooling: Literal["cls", "mean", "map"] = "cls"
    norm_pre: bool = True
    patch_bias: bool = False
    projection: Projection = "linear"
    patch_dropout: float = Field(default=0.0, ge=0, lt=1)
    mask_token: bool = False

    @model_validator(mode="after")
    def _no_context(self) -> "VisionTransformerConfig":
        if self.cross_attention != "none":
            raise ValueError(
                "VisionTransformerConfig.cross_attention must be 'none'; a tower has nothing to attend to."
            )
        return self

    def build(self, resolution: int, embed_dim: int) -> "VisionTransformer":
        return VisionTransformer(self, resolution, embed_dim)


class VisionTransformer(ImageTower):
    """Patches, positions, blocks, one of three poolings. Takes images of any size: positions are interpolated.

    First weights follow OpenAI's code: CLS, positions and projection N(0, 1/width), blocks at torch's defaults.
    """

    def __init__(self, config: VisionTransformerConfig, resolution: int, embed_dim: int) -> None:
        super().__init__()
        c = self.config = config
        self.width = c.width
        self.patch_embed = PatchEmbed(c.width, c.patch_size, c.patch_bias)
        rows, columns = self.patch_embed.grid(resolution, resolution)
        std = c.width**-0.5
        self.prefix = 1 if c.pooling == "cls" else 0
        self.cls_token = nn.Parameter(torch.randn(c.width) * std) if self.prefix else None
        self.position_embed = nn.Parameter(torch.randn(self.prefix + rows * columns, c.width) * std)
        self.mask_token = nn.Parameter(torch.randn(c.width) * 0.02) if c.mask_token else None
        self.norm_pre = build_norm(c.norm, c.width, c.norm_eps) if c.norm_pre else None
        self.blocks = build_blocks(c)
        self.norm_post = build_norm(c.norm, c.width, c.norm_eps)
        self.map_pool = MapPool(c.width, c.heads, c.mlp_width, c.activation, c.norm_eps) if c.pooling == "map" else None
        self.projection = build_projection(c.projection, c.width, embed_dim, type(c).__name__)
        init_default(self.blocks)

    def forward(
        self,
        images: Float[Tensor, "b 3 h w"] | Float[Tensor, "b k c"],
        patch_index: Int64[Tensor, "b k"] | None = None,
        patch_grid: tuple[int, int] | None = None,
    ) -> Float[Tensor, "b e"]:
        """Pooled and projected; of whole images, or of those patches alone that the data room has kept of each (with
        their places in a grid of rows and columns): then nothing more is dropped here."""
        if patch_index is None or patch_grid is None:
            x = self._embed(images)
        else:
            x = self._embed_kept(images, patch_index, patch_grid)
        x = self._blocks(x, only_first=self.cls_token is not None)
        if self.map_pool is not None:
            x = self.map_pool(self.norm_post(x))
        elif self.cls_token is not None:
            x = self.norm_post(x)
        else:
            x = self.norm_post(x).mean(1)
        return x if self.projection is None else self.projection(x)

    def tokens(self, images: Float[Tensor, "b 3 h w"], layer: int = -1) -> Float[Tensor, "b p d"]:
        """Per-token outputs after the last norm; of an earlier `layer` (-2: the last block but one) without a norm."""
        if layer == -1:
            return self.norm_post(self._blocks(self._embed(images)))
        x = self._embed(images)
        x = x if self.norm_pre is None else self.norm_pre(x)
        return through_blocks(self.blocks[: layer + 1], x)

    def tokens_of_masked(self, images: Float[Tensor, "b 3 h w"], masked: Bool[Tensor, "b n"]) -> Float[Tensor, "b p d"]:
        if self.mask_token is None:
            return super().tokens_of_masked(images, masked)
        return self.norm_post(self._blocks(self._embed(images, masked)))

    def states(
        self, images: Float[Tensor, "b 3 h w"], masked: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b p d"], Float[Tensor, "b p d"]]:
        """What `tokens` (or `tokens_of_masked`) returns, before the last norm and after it (FLAVA reads both)."""
        if masked is not None and self.mask_token is None:
            images, masked = hide_pixels(images, masked), None
        x = self._blocks(self._embed(images, masked))
        return x, self.norm_post(x)

    def decay_free(self) -> set[str]:
        return {"position_embed"} | ({"map_pool.probe"} if self.map_pool is not None else set())

    def _embed(self, images: Tensor, masked: Tensor | None = None) -> Tensor:
        x = self.patch_embed(images)
        if masked is not None and self.mask_token is not None:
            x = torch.where(masked[..., None], self.mask_token.to(x.dtype), x)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        grid = self.patch_embed.grid(images.shape[-2], images.shape[-1])
        x = x + resize_position_embed(self.position_embed, grid, self.prefix).to(x.dtype)
        return patch_dropout(x, self.config.patch_dropout, self.prefix, self.training)

    def _embed_kept(self, patches: Tensor, index: Tensor, grid: tuple[int, int]) -> Tensor:
        """What embedding all patches, adding positions and then choosing those of `index` gives."""
        x = self.patch_embed.of_patches(patches)
        positions = resize_position_embed(self.position_embed, grid, self.prefix).to(x.dtype)
        x = x + F.embedding(index, positions[self.prefix :])
        if self.cls_token is None:
            return x
        first = (self.cls_token.to(x.dtype) + positions[0]).expand(x.shape[0], 1, -1)
        return torch.cat([first, x], dim=1)

    def _blocks(self, x: Tensor, only_first: bool = False) -> Tensor:
        """Through all blocks; with `only_first` (b, d), each image's first token, of which alone the last block then
        computes more than keys and values."""
        if self.norm_pre is not None:
            x = self.norm_pre(x)
        only = torch.arange(0, x.shape[0] * x.shape[1], x.shape[1], device=x.device) if only_first else None
        return through_blocks(self.blocks, x, None, only)
