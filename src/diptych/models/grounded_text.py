"""A text side that can look at an image: embeddings and blocks of BERT's kind, with cross-attention where it looks.

Shared by ALBEF (a half that reads alone, a half that looks) and BLIP (one stack in three roles).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diptych.core.errors import DataError
from diptych.nn.attention import Attention
from diptych.nn.block import BlockConfig, TransformerBlock, init_scaled
from diptych.nn.cache import LayerCache
from diptych.nn.mask import Layout, MaskPlan, padding
from diptych.nn.norm import build_norm


class RoleBlock(TransformerBlock):
    """A block with two self-attentions over one cross-attention and one MLP: reading (all tokens seen) and writing.

    What differs between BLIP's encoder and its decoder is the self-attention and its norm; all else is shared (Li et
    al., 2022, arXiv:2201.12086, section 3.1). Without `both` it is the plain block, whatever it does.
    """

    def __init__(self, config: BlockConfig, rate: float = 0.0, both: bool = False) -> None:
        super().__init__(config, rate)
        c = config
        qk, inner = (c.norm if c.qk_norm else None), (c.norm if c.norm_position == "sub" else None)
        self.writing_attention: Attention | None = None
        self.writing_norm: nn.Module | None = None
        if both:
            self.writing_attention = Attention(c.width, c.heads, c.bias, qk, inner, c.norm_eps, None, c.kv_heads)
            self.writing_norm = build_norm(c.norm, c.width, c.norm_eps)

    def forward(  # type: ignore[override]  # neither `only` nor rotary positions here, but a role
        self,
        x: Float[Tensor, "b s d"],
        mask: MaskPlan | None = None,
        context: Float[Tensor, "b k c"] | None = None,
        context_mask: MaskPlan | None = None,
        writes: bool = False,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "b s d"]:
        """`context`: tokens of the image; None: the block does not look. `writes`: in the role of the decoder."""
        norm, attention = self.norm_1, self.attention
        if writes and self.writing_attention is not None and self.writing_norm is not None:
            norm, attention = self.writing_norm, self.writing_attention
        own, read = (None, None) if cache is None else (cache.own, cache.context)
        x = self._add(x, norm, lambda y: attention(y, mask, cache=own), self.scale_1, mask)
        if context is not None and self.cross_kind == "plain":
            x = self._add(
                x, self.norm_cross, lambda y: self.cross_attention(y, context_mask, context, cache=read), None, mask
            )
        return self._add(x, self.norm_2, self.mlp, self.scale_2, mask)


class GroundedText(nn.Module):
    """Token and position embeddings and `RoleBlock`s; BERT's blocks ("post") come with a norm of the embeddings, those
    with norms before ("pre") with one at the end.

    `rows`: of the table of tokens, special ones beyond the vocabulary included. First weights: embeddings N(0, 0.02^2);
    blocks as BERT's, N(0, 0.02^2) without biases, where norms come behind, else as in `init_scaled`.
    """

    def __init__(
        self, config: BlockConfig, rows: int, context_length: int, context_width: int = 0, both: bool = False
    ) -> None:
        super().__init__()
        kind = {"cross_attention": "plain", "context_width": context_width} if context_width else {}
        c = self.config = config.replace(**kind)
        self.width, self.context_length = c.width, context_length
        self.token_embed = nn.Embedding(rows, c.width)
        self.position_embed = nn.Parameter(torch.randn(context_length, c.width) * 0.02)
        nn.init.normal_(self.token_embed.weight, std=0.02)
        behind = c.norm_position == "post"
        self.norm_embed = build_norm(c.norm, c.width, c.norm_eps) if behind else nn.Identity()
        self.blocks = build_role_blocks(c, both)
        self.norm_final = nn.Identity() if behind else build_norm(c.norm, c.width, c.norm_eps)

    def embed(
        self, tokens: Int64[Tensor, "b t"], start: Int64[Tensor, " b"] | None = None, first_id: int = -1
    ) -> Float[Tensor, "b t d"]:
        """Tokens and their places as vectors; `first_id` >= 0 stands in the place of each text's first token. `start`:
        how many tokens came before."""
        if tokens.shape[1] > self.context_length:
            raise DataError(
                f"a text must have at most {self.context_length} tokens, this model's context_length; got "
                f"{tokens.shape[1]}. Truncate with the model's own tokenizer."
            )
        places = torch.arange(tokens.shape[1], device=tokens.device)[None]
        places = places if start is None else places + start[:, None]
        if first_id >= 0:
            tokens = torch.where(places == 0, first_id, tokens)
        position = F.embedding(places.clamp(max=self.context_length - 1), self.position_embed)
        return self.norm_embed(self.token_embed(tokens) + position)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        mask: MaskPlan | None = None,
        context: Float[Tensor, "b p c"] | None = None,
        context_mask: MaskPlan | None = None,
        writes: bool = False,
        layers: list[LayerCache] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """States of embedded tokens. `context`: what they look at, as far as `context_mask` lets them."""
        for i, block in enumerate(self.blocks):
            x = block(x, mask, context, context_mask, writes, None if layers is None else layers[i])
        return self.norm_final(x)

    def look(self, context: Float[Tensor, "b p c"], layers: list[LayerCache]) -> None:
        """Note the keys and values of the image in every layer: once, for all texts that will be read."""
        query = context.new_zeros(len(context), 1, self.width)  # one has to be there to ask for them
        for block, layer in zip(self.blocks, layers, strict=True):
            cross: Any = block.cross_attention
            cross(query, None, context, cache=layer.context)


def build_role_blocks(config: BlockConfig, both: bool = False) -> nn.ModuleList:
    """`config.depth` blocks with their first weights; drop-path grows linearly to `config.drop_path`."""
    last = max(config.depth - 1, 1)
    blocks = nn.ModuleList(RoleBlock(config, config.drop_path * i / last, both) for i in range(config.depth))
    if config.norm_position != "post":
        init_scaled(blocks, config.width, max(config.depth, 1))
        return blocks
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return blocks


def whole_texts(lengths: Int64[Tensor, " b"], width: int, device: torch.device) -> MaskPlan | None:
    """Every token sees all real ones of its row of `width` places."""
    return padding().plan(Layout.of_lengths(lengths.to(device, non_blocking=True), width))
