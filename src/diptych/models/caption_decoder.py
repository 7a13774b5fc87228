"""CoCa's decoupled text decoder: a half that sees text alone and ends in a CLS, and a half that sees the image as well.

Yu et al., 2022, arXiv:2205.01917, section 3.2 and figure 2. A layer of the second half is two blocks, as in the public
implementations: causal self-attention and MLP, then cross-attention and MLP.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diptych.nn.attention import Attention
from diptych.nn.block import BlockConfig, build_blocks, init_scaled
from diptych.nn.cache import KeyValues, LayerCache
from diptych.nn.mask import MaskPlan
from diptych.nn.mlp import MLP
from diptych.nn.norm import build_norm


class TextHalf(nn.Module):
    """Embeddings and causal blocks. A learned CLS stands behind each text's last token, with a position of its own (the
    last), so that it sees every real token and none sees it.

    With `legacy` the CLS sees the texts as open_clip's weights have learned to: the first padding token too, and not
    itself, unless the text fills the context. There its mask lies one place off.

    First weights: tokens N(0, 0.02^2), positions and CLS N(0, 0.01^2), blocks as in `init_scaled`.
    """

    def __init__(self, config: BlockConfig, vocab_size: int, context_length: int, legacy: bool, pad_id: int) -> None:
        super().__init__()
        c = self.config = config
        self.context_length, self.legacy, self.pad_id = context_length, legacy, pad_id
        self.token_embed = nn.Embedding(vocab_size, c.width)
        self.position_embed = nn.Parameter(torch.randn(context_length + 1, c.width) * 0.01)
        self.cls_token = nn.Parameter(torch.randn(c.width) * 0.01)
        self.blocks = build_blocks(c)
        nn.init.normal_(self.token_embed.weight, std=0.02)
        init_scaled(self.blocks, c.width, max(c.depth, 1))

    def forward(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d"]]:
        """The states of the tokens and of the CLS, none of them normalised. `lengths` lie where the tokens do."""
        count = tokens.shape[1]
        place, shown = lengths, tokens
        if self.legacy:
            place = (lengths + 1).clamp(max=self.context_length)  # behind one padding token
            real = torch.arange(count, device=tokens.device) < lengths[:, None]
            shown = torch.where(real, tokens, self.pad_id)
            count = min(count + 1, self.context_length)
            shown = nn.functional.pad(shown, (0, count - shown.shape[1]), value=self.pad_id)
        x = self.token_embed(shown) + self.position_embed[:count]
        x = nn.functional.pad(x, (0, 0, 0, 1))  # room for the CLS of the longest
        cls = self.cls_token + self.position_embed[-1]
        here = torch.arange(count + 1, device=tokens.device) == place[:, None]
        x = torch.where(here[:, :, None], cls.to(x.dtype), x)
        mask = self._legacy_mask(here, lengths) if self.legacy else MaskPlan(is_causal=True)
        for block in self.blocks:
            x = block(x, mask)
        return x[:, : tokens.shape[1]], x[torch.arange(len(x), device=x.device), place]

    def read(
        self,
        tokens: Int64[Tensor, "b t"],
        positions: Int64[Tensor, "b t"],
        mask: MaskPlan | None,
        layers: list[LayerCache],
    ) -> Float[Tensor, "b t d"]:
        """The states of tokens that follow those which `layers` have noted."""
        x = self.token_embed(tokens) + nn.functional.embedding(positions, self.position_embed)
        for block, layer in zip(self.blocks, layers, strict=True):
            x = block(x, mask, cache=layer)
        return x

    def _legacy_mask(self, here: Tensor, lengths: Tensor) -> MaskPlan:
        """Causal, but that the CLS does not see itself where there is padding before it."""
        size = here.shape[1]
        causal = torch.ones(size, size, dtype=torch.bool, device=here.device).tril()
        padded = lengths < self.context_length
        itself = here[:, :, None] & here[:, None, :] & padded[:, None, None]
        return MaskPlan(allowed=(causal & ~itself)[:, None])


class CrossBlock(nn.Module):
    """x + attention(norm_1 x, to norm_context of the context), then x + MLP(norm_2 x)."""

    recomputable = True
    """See nn/checkpointing.py."""

    def __init__(self, config: BlockConfig, context_width: int) -> None:
        super().__init__()
        c = config
        self.norm_1, self.norm_2 = (build_norm(c.norm, c.width, c.norm_eps) for _ in range(2))
        self.norm_context = build_norm(c.norm, context_width, c.norm_eps)
        self.attention = Attention(c.width, c.heads, c.bias, context_width=context_width)
        self.mlp = MLP(c.width, c.mlp_width, c.activation, c.bias)
        scales = [nn.Parameter(torch.full((c.width,), c.layer_scale)) if c.layer_scale else None for _ in range(2)]
        self.scale_1, self.scale_2 = scales

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        context: Float[Tensor, "b p c"],
        only: Int64[Tensor, " n"] | None = None,
        cache: KeyValues | None = None,
    ) -> Float[Tensor, "b t d"] | Float[Tensor, "n d"]:
        """`only`: the places, counted row by row, whose outputs are wanted. A context in the cache is not read."""
        known = cache is not None and cache.length > 0
        seen = context if known else self.norm_context(context)
        attended = self.attention(self.norm_1(x), None, seen, only, cache=cache)
        x = x if only is None else x.flatten(0, 1).index_select(0, only)
        x = x + (attended if self.scale_1 is None else attended * self.scale_1)
        widened = self.mlp(self.norm_2(x))
        return x + (widened if self.scale_2 is None else widened * self.scale_2)


class ImageHalf(nn.Module):
    """Layers of a causal self-attention block and a cross-attention block, a norm, and the map to the vocabulary.

    First weights: blocks as in `init_scaled`, the head N(0, 1/width), as open_clip draws it.
    """

    def __init__(self, config: BlockConfig, context_width: int, vocab_size: int) -> None:
        super().__init__()
        c = self.config = config
        self.blocks = build_blocks(c)
        self.cross_blocks = nn.ModuleList(CrossBlock(c, context_width) for _ in range(c.depth))
        self.norm_final = build_norm(c.norm, c.width, c.norm_eps)
        self.head = nn.Linear(c.width, vocab_size, bias=False)
        for blocks in (self.blocks, self.cross_blocks):
            init_scaled(blocks, c.width, max(c.depth, 1))
        nn.init.normal_(self.head.weight, std=c.width**-0.5)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        context: Float[Tensor, "b p c"],
        mask: MaskPlan | None,
        only: Int64[Tensor, " n"] | None = None,
        layers: list[LayerCache] | None = None,
    ) -> Float[Tensor, "b t d"] | Float[Tensor, "n d"]:
        """The states from which next tokens are predicted, after the last norm."""
        depth = len(self.blocks)
        for i, (block, cross) in enumerate(zip(self.blocks, self.cross_blocks, strict=True)):
            layer = None if layers is None else layers[i]
            x = block(x, mask, cache=layer)
            x = cross(x, context, only if i == depth - 1 else None, None if layer is None else layer.context)
        if only is not None and not depth:
            x = x.flatten(0, 1).index_select(0, only)
        return self.norm_final(x)

    def look(self, context: Float[Tensor, "b p c"], layers: list[LayerCache]) -> None:
        """Note the keys and values of the context in every layer: once, for all texts that will be read."""
        query = context.new_zeros(len(context), 1, self.config.width)  # one has to be there to ask for them
        blocks: Iterable[Any] = self.cross_blocks
        for cross, layer in zip(blocks, layers, strict=True):
            cross.attention(query, None, cross.norm_context(context), cache=layer.context)
