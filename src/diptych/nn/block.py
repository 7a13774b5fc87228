"""The one transformer block of the house, and the two ways in which CLIP draws its first weights."""

from collections.abc import Iterable
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.config import Config
from diptych.nn.attention import Attention
from diptych.nn.cache import LayerCache
from diptych.nn.experts import Experts
from diptych.nn.mask import MaskPlan
from diptych.nn.mlp import MLP, Activation
from diptych.nn.norm import NormKind, build_norm
from diptych.nn.rotary import Rotary


class BlockConfig(Config):
    """What a transformer is made of. Towers inherit these fields, so that they stand flat in a tower's settings.

    norm_position    "pre" (CLIP, GPT), "post" (BERT), "sub" (pre, and a norm inside each half: Magneto, BEiT-3),
                     "swin" (norm on what is added: Swin v2, Chameleon 34B)
    qk_norm          norm on each head's queries and keys: true for one like the others, "layer" for a layer norm where
                     the others are not, "layer_by_head" for one whose gain is each head's own (Chameleon's weights)
    layer_scale      first value of a learned gain on each residual branch; 0: no such gain
    drop_path        chance that a residual branch is skipped, at the last block; it grows linearly from 0 at the first
    cross_attention  "plain": a second attention, to `context`, between the two halves (ALBEF, BLIP); Flamingo's gated
                     one stands before whole blocks (nn/perceiver.py)
    context_width    width of `context`, 0: the same as `width`
    kv_heads         heads of keys and values, each shared by heads / kv_heads queries; 0: as many as `heads`
    experts          MLPs of a block, of which a router asks `experts_per_token` for each token (nn/experts.py), each as
                     wide as mlp_ratio says; 0: one MLP for all
    """

    width: int = Field(default=512, gt=0)
    depth: int = Field(default=12, ge=0)
    heads: int = Field(default=8, gt=0)
    mlp_ratio: float = Field(default=4.0, gt=0)
    activation: Activation = "gelu"
    norm: NormKind = "layer"
    norm_eps: float = Field(default=1e-5, gt=0)
    norm_position: Literal["pre", "post", "sub", "swin"] = "pre"
    bias: bool = True
    qk_norm: bool | Literal["layer", "layer_by_head"] = False
    layer_scale: float = Field(default=0.0, ge=0)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    cross_attention: Literal["none", "plain"] = "none"
    context_width: int = Field(default=0, ge=0)
    kv_heads: int = Field(default=0, ge=0)
    experts: int = Field(default=0, ge=0)
    experts_per_token: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> "BlockConfig":
        if self.width % self.heads:
            raise ValueError(
                f"{type(self).__name__}.width must be a multiple of heads; got width {self.width}, heads {self.heads}. "
                f"Heads are usually width / 64."
            )
        if self.experts and not self.experts_per_token < self.experts:
            raise ValueError(
                f"{type(self).__name__}.experts must be more than experts_per_token, or 0 for one MLP; got "
                f"{self.experts} experts, {self.experts_per_token} a token. Eight with two is a usual choice."
            )
        return self

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLP, rounded: ratios in the wild (3.7362, 4.9231) are themselves rounded."""
        return round(self.width * self.mlp_ratio)


class Picked(NamedTuple):
    """Some of the tokens of r rows of l places: their numbers, counted row by row."""

    places: Int64[Tensor, " n"]
    rows: int
    length: int


def drop_path(
    x: Float[Tensor, "b s d"] | Float[Tensor, "n d"],
    rate: float,
    training: bool,
    mask: MaskPlan | None = None,
    picked: Picked | None = None,
) -> Float[Tensor, "b s d"] | Float[Tensor, "n d"]:
    """`x` with whole samples set to zero with chance `rate`, the others scaled up (Huang et al., 2016).

    A sample is a row, or, where `mask` packs several into a row, each of those: one draw each, in their order, so that
    packed and padded texts are drawn alike, and so are those tokens that were `picked`. Drawn from torch's global
    generator of x's device: no synchronisation, and replaying its state replays the draw.
    """
    if not training or rate == 0.0:
        return x
    if mask is not None and mask.sample is not None:
        kept = (torch.rand(mask.samples, 1, device=x.device) >= rate)[mask.sample]  # (b, s, 1)
    else:
        rows = x.shape[0] if picked is None else picked.rows
        kept = torch.rand(rows, 1, 1, device=x.device) >= rate
    if picked is not None:
        kept = kept.expand(-1, picked.length, -1).flatten(0, 1).index_select(0, picked.places)  # (n, 1)
    return x * (kept / (1.0 - rate)).to(x.dtype)


class TransformerBlock(nn.Module):
    """Attention and MLP around a residual stream. `rate` is this block's own drop-path chance."""

    recomputable: ClassVar[bool] = True
    """See nn/checkpointing.py."""

    def __init__(self, config: BlockConfig, rate: float = 0.0) -> None:
        super().__init__()
        c = config
        self.norm_position, self.rate = c.norm_position, rate
        inner = c.norm if c.norm_position == "sub" else None
        qk = c.norm if c.qk_norm is True else c.qk_norm or None

        def attention(context: int | None = None) -> Attention:
            return Attention(c.width, c.heads, c.bias, qk, inner, c.norm_eps, context, c.kv_heads)

        def norm() -> nn.Module:
            return build_norm(c.norm, c.width, c.norm_eps)

        self.cross_kind = c.cross_attention
        if c.cross_attention != "none":
            self.norm_cross, self.cross_attention = norm(), attention(c.context_width or None)
        self.norm_1, self.attention = norm(), attention()
        self.norm_2, self.mlp = norm(), build_mlp(c)
        if c.layer_scale:
            self.scale_1: nn.Parameter | None = nn.Parameter(torch.full((c.width,), c.layer_scale))
            self.scale_2: nn.Parameter | None = nn.Parameter(torch.full((c.width,), c.layer_scale))
        else:
            self.scale_1, self.scale_2 = None, None

    def forward(
        self,
        x: Float[Tensor, "b s d"],
        mask: MaskPlan | None = None,
        context: Float[Tensor, "b k c"] | None = None,
        context_mask: MaskPlan | None = None,
        only: Int64[Tensor, " n"] | None = None,
        rotary: Rotary | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "b s d"] | Float[Tensor, "n d"]:
        """`only`: the places, counted row by row, whose outputs are wanted, as the last block of a tower that pools one
        token a sample needs no others: it still attends to all, but projects and widens only these.

        `cache` holds the keys and values of the tokens before x, and takes in those of x.
        """
        own, read = (None, None) if cache is None else (cache.own, cache.context)
        if self.cross_kind == "plain" and context is not None:
            x = self._add(
                x, self.norm_1, lambda y: self.attention(y, mask, None, None, rotary, own), self.scale_1, mask
            )
            x = self._add(
                x,
                self.norm_cross,
                lambda y: self.cross_attention(y, context_mask, context, cache=read),
                None,
                mask,
            )
            x = self._add(x, self.norm_2, self.mlp, self.scale_2, mask)
            return x if only is None else x.flatten(0, 1).index_select(0, only)
        picked = None if only is None else Picked(only, x.shape[0], x.shape[1])
        x = self._add(
            x, self.norm_1, lambda y: self.attention(y, mask, None, only, rotary, own), self.scale_1, mask, picked
        )
        return self._add(x, self.norm_2, self.mlp, self.scale_2, mask, picked)

    def _add(
        self,
        x: Tensor,
        norm: nn.Module,
        branch: object,
        scale: Tensor | None,
        mask: MaskPlan | None,
        picked: Picked | None = None,
    ) -> Tensor:
        assert callable(branch)
        before, after = self.norm_position in ("pre", "sub"), self.norm_position == "swin"
        y = branch(norm(x) if before else x)
        y = norm(y) if after else y
        y = drop_path(y if scale is None else y * scale, self.rate, self.training, mask, picked)
        if picked is not None and x.ndim == 3:  # not yet picked itself
            x = x.flatten(0, 1).index_select(0, picked.places)
        return norm(x + y) if self.norm_position == "post" else x + y


def build_mlp(config: BlockConfig) -> MLP | Experts:
    """The feed-forward half of a block: an MLP, or several with a router."""
    c = config
    inner = c.norm if c.norm_position == "sub" else None

    def mlp() -> MLP:
        return MLP(c.width, c.mlp_width, c.activation, c.bias, inner, c.norm_eps)

    return Experts(c.width, c.experts, c.experts_per_token, mlp) if c.experts else mlp()


def build_blocks(config: BlockConfig) -> nn.ModuleList:
    """`config.depth` blocks, whose drop-path chance grows linearly to `config.drop_path`."""
    last = max(config.depth - 1, 1)
    return nn.ModuleList(TransformerBlock(config, config.drop_path * i / last) for i in range(config.depth))


def through_blocks(
    blocks: nn.ModuleList,
    x: Float[Tensor, "b s d"],
    mask: MaskPlan | None = None,
    only: Int64[Tensor, " n"] | None = None,
) -> Float[Tensor, "b s d"] | Float[Tensor, "n d"]:
    """`x` through all blocks, one after the other; with `only`, the outputs at these places alone (counted row by row).

    The last block computes no others. Of twelve equal blocks that is one sixteenth of the arithmetic.
    """
    if only is None or not len(blocks):
        for block in blocks:
            x = block(x, mask)
        return x if only is None else x.flatten(0, 1).index_select(0, only)
    for block in blocks[:-1]:
        x = block(x, mask)
    return blocks[-1](x, mask, only=only)


def init_scaled(blocks: Iterable[nn.Module], width: int, depth: int) -> None:
    """OpenAI's scheme for its text tower: queries, keys and values N(0, 1/d), fc_1 N(0, 1/2d), and what is written to
    the residual stream (out_proj, fc_2) smaller by sqrt(2 depth), so that its variance does not grow with depth.
    Attention biases are zero; MLP biases stay at torch's default.
    """
    for module in (m for b in blocks for m in b.modules()):
        if isinstance(module, Attention):
            for linear in (module.q_proj, module.k_proj, module.v_proj):
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.normal_(module.out_proj.weight, std=width**-0.5 * (2 * depth) ** -0.5)
            _zero_biases(module)
        if isinstance(module, MLP):
            for up in filter(None, (module.fc_1, module.fc_gate)):
                nn.init.normal_(up.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(module.fc_2.weight, std=width**-0.5 * (2 * depth) ** -0.5)


def init_default(blocks: Iterable[nn.Module]) -> None:
    """OpenAI's and open_clip's image tower: what torch's own MultiheadAttention and Linear draw.

    A packed (3d, d) projection drawn Xavier-uniform has bound sqrt(6 / 4d), so each of its thirds has it too.
    """
    for module in (m for b in blocks for m in b.modules()):
        if isinstance(module, Attention):
            for linear in (module.q_proj, module.k_proj, module.v_proj):
                bound = (6 / (linear.in_features + 3 * linear.out_features)) ** 0.5
                nn.init.uniform_(linear.weight, -bound, bound)
            _zero_biases(module)


def _zero_biases(attention: Attention) -> None:
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
