"""The text transformer of CLIP (causal, EOS), of SigLIP (sees everything, last position), and of BERT's kind."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.errors import DataError
from diptych.models.tower import TextTower, TextTowerConfig
from diptych.nn.attention import has_runs_kernel
from diptych.nn.block import BlockConfig, build_blocks, init_scaled, through_blocks
from diptych.nn.mask import Layout, causal, padding
from diptych.nn.norm import build_norm
from diptych.nn.packing import Packing, host_lengths, pack
from diptych.nn.pool import Projection, build_projection, masked_mean
from diptych.nn.prefix_tree import pack_tree


class TextTransformerConfig(TextTowerConfig, BlockConfig):
    """Settings of a text transformer; the block's are among them.

    attention   which tokens a token sees: "causal": those before it, "bidirectional": all real ones
    pooling     "eos": the last real token; "cls": the first; "mean" of the real ones; "last": the last place of the
                context, after padding every text to it with `pad_id` and letting padding be seen (SigLIP)
    norm_pre    a norm between embedding and blocks (BERT)
    norm_final  a norm after the blocks; BERT, whose blocks end in norms (norm_position="post"), has none
    pooler      the hyperbolic tangent of a square linear map on the pooled token, before the projection (BERT's)
    projection  "none" needs width equal to the model's embed_dim
    pretrained  packaged weights that a run starts from ("minilm"); empty: fresh ones
    """

    attention: Literal["causal", "bidirectional"] = "causal"
    pooling: Literal["eos", "cls", "mean", "last"] = "eos"
    pad_id: int = Field(default=0, ge=0)
    norm_pre: bool = False
    norm_final: bool = True
    pooler: bool = False
    projection: Projection = "linear"
    pretrained: str = ""

    @model_validator(mode="after")
    def _sees_the_text(self) -> "TextTransformerConfig":
        if self.attention == "causal" and self.pooling == "cls":
            raise ValueError(
                "TextTransformerConfig.pooling must not be 'cls' under causal attention, where the first token sees "
                "only itself; got 'cls'. Use pooling=eos, or attention=bidirectional."
            )
        if self.cross_attention != "none":
            raise ValueError("TextTransformerConfig.cross_attention must be 'none'; a tower has nothing to attend to.")
        return self

    @classmethod
    def bert(cls, width: int, depth: int, heads: int) -> "TextTransformerConfig":
        """BERT (Devlin et al., 2019): blocks and embedding end in norms, every token sees all, the first is pooled."""
        return cls(
            width=width,
            depth=depth,
            heads=heads,
            norm_eps=1e-12,
            norm_position="post",
            norm_pre=True,
            norm_final=False,
            attention="bidirectional",
            pooling="cls",
            projection="linear_bias",
        )

    def build(self, vocab_size: int, context_length: int, embed_dim: int) -> "TextTransformer":
        return TextTransformer(self, vocab_size, context_length, embed_dim)


class TextTransformer(TextTower):
    """Token and position embeddings, blocks, one of four poolings.

    `forward` packs texts back to back (nn/packing.py), so that padding is never computed; `padded` is the same function
    of padded rows, in value and gradient (drop-path draws once a text, alike), and what runs where there is nothing to
    gain. "last" pads always: there padding is part of the function. A text without tokens is pooled to zeros.
    First weights follow OpenAI's code: tokens N(0, 0.02^2), positions N(0, 0.01^2), blocks as in `init_scaled`.
    """

    def __init__(self, config: TextTransformerConfig, vocab_size: int, context_length: int, embed_dim: int) -> None:
        super().__init__()
        c = self.config = config
        self.width, self.context_length = c.width, context_length
        self.token_embed = nn.Embedding(vocab_size, c.width)
        self.position_embed = nn.Parameter(torch.randn(context_length, c.width) * 0.01)
        self.norm_pre = build_norm(c.norm, c.width, c.norm_eps) if c.norm_pre else None
        self.blocks = build_blocks(c)
        self.norm_final = build_norm(c.norm, c.width, c.norm_eps) if c.norm_final else nn.Identity()
        self.pooler = nn.Linear(c.width, c.width) if c.pooler else None
        self.projection = build_projection(c.projection, c.width, embed_dim, type(c).__name__)
        nn.init.normal_(self.token_embed.weight, std=0.02)
        init_scaled(self.blocks, c.width, max(c.depth, 1))

    def forward(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        packing = self._packing(tokens, lengths)
        if packing is None:
            return self.padded(tokens, lengths)
        pooling = self.config.pooling
        if pooling == "mean":
            x = self._encode_packed(tokens, packing)
            return self._project(packing.means(self.norm_final(packing.reals(x))))
        x = self._encode_packed(tokens, packing, packing.last if pooling == "eos" else packing.first)
        return self._project(self.norm_final(packing.pooled(x)))

    def padded(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """`forward` by padded rows: the plain twin. Only here may lengths be without content (the meta device)."""
        pooling = self.config.pooling
        x, lengths = self._encode_padded(tokens, lengths, pooled=pooling != "mean")
        if pooling == "mean":
            return self._project(masked_mean(self.norm_final(x), lengths))
        if pooling != "last":
            x = torch.where(lengths[:, None] > 0, x, 0)
        return self._project(self.norm_final(x))  # norms act token by token: only the pooled ones'

    def tokens(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b t d"]:
        packing = self._packing(tokens, lengths)
        if packing is not None:
            return packing.unpack(self.norm_final(packing.reals(self._encode_packed(tokens, packing))))
        x, lengths = self._encode_padded(tokens, lengths)
        return self._cut(self.norm_final(x[:, : tokens.shape[1]]), lengths, tokens.shape[1])

    def states(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b t d"]]:
        """What `tokens` returns, before the last norm and after it (FLAVA reads both)."""
        packing = self._packing(tokens, lengths)
        if packing is not None:
            x = packing.reals(self._encode_packed(tokens, packing))
            return packing.unpack(x), packing.unpack(self.norm_final(x))
        x, lengths = self._encode_padded(tokens, lengths)
        x, width = x[:, : tokens.shape[1]], tokens.shape[1]
        return self._cut(x, lengths, width), self._cut(self.norm_final(x), lengths, width)

    def decay_free(self) -> set[str]:
        return {"position_embed"}

    def _packing(self, tokens: Tensor, lengths: Tensor) -> Packing | None:
        """How to pack a batch; None where padding is seen, where it costs nothing, and for lengths without content."""
        if torch.compiler.is_compiling():
            return None  # a graph of the whole tower has one shape, and packing is decided on the host
        if self.config.pooling == "last" or lengths.is_meta:
            return None
        device, width, lengths = tokens.device, tokens.shape[1], host_lengths(lengths, tokens.shape[1])
        mixed = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if mixed else self.position_embed.dtype
        if has_runs_kernel(device, dtype, self.width // self.config.heads):
            return pack(lengths, width, device, "flat")
        one_draw_each = self.training and self.config.drop_path > 0
        if device.type == "cpu" and self.config.attention == "causal" and not one_draw_each:
            return pack_tree(tokens, lengths)
        return pack(lengths, width, device, "rows")

    def _encode_packed(self, tokens: Tensor, packing: Packing, only: Tensor | None = None) -> Tensor:
        self._check(tokens)
        positions = nn.functional.embedding(packing.layout.positions(), self.position_embed)
        x = self._embed(packing.take(tokens), positions)
        return through_blocks(self.blocks, x, packing.mask(self.config.attention == "causal"), only)

    def _encode_padded(self, tokens: Tensor, lengths: Tensor, pooled: bool = False) -> tuple[Tensor, Tensor]:
        """Outputs of the blocks (`pooled`: of the one token that is pooled), and the lengths where the tokens are."""
        self._check(tokens)
        sees_all, even = self.config.pooling == "last", False
        blind = lengths.is_meta or torch.compiler.is_compiling()  # a graph has one shape: nothing is cut by content
        if not (sees_all or blind):
            lengths = host_lengths(lengths, tokens.shape[1])
            longest = max(int(lengths.max()) if len(lengths) else 1, 1)
            tokens, even = tokens[:, :longest], bool((lengths == longest).all())
        lengths = lengths.to(tokens.device, non_blocking=True)
        if sees_all:
            tokens = self._fill(tokens, lengths)
        layout, mask = Layout.plain(tokens.shape[1], tokens.device), None
        if self.config.attention == "causal":
            mask = causal().plan(layout)  # no real token sees the padding behind it
        elif not (sees_all or even):
            mask = padding().plan(Layout.of_lengths(lengths, tokens.shape[1]))
        x = self._embed(tokens, self.position_embed[: tokens.shape[1]])
        return through_blocks(self.blocks, x, mask, self._pooled_places(x, lengths) if pooled else None), lengths

    def _cut(self, x: Tensor, lengths: Tensor, width: int) -> Tensor:
        """Padded outputs with zeros where padding is no part of the function, `width` tokens wide."""
        if self.config.pooling != "last":
            x = torch.where(torch.arange(x.shape[1], device=x.device)[:, None] < lengths[:, None, None], x, 0)
        return nn.functional.pad(x, (0, 0, 0, width - x.shape[1]))

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = self.token_embed(tokens) + positions
        return x if self.norm_pre is None else self.norm_pre(x)

    def _pooled_places(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Where the token that is pooled stands in padded rows; some place where a text has none."""
        rows, width = x.shape[:2]
        first = torch.arange(0, rows * width, width, device=x.device)
        if self.config.pooling == "eos":
            return first + (lengths - 1).clamp(min=0)
        return first if self.config.pooling == "cls" else first + width - 1

    def _project(self, x: Tensor) -> Tensor:
        x = x if self.pooler is None else self.pooler(x).tanh()
        return x if self.projection is None else self.projection(x)

    def _check(self, tokens: Tensor) -> None:
        if tokens.shape[1] > self.context_length:
            raise DataError(
                f"a text must have at most {self.context_length} tokens, this tower's context_length; got "
                f"{tokens.shape[1]}. Truncate with the model's own tokenizer."
            )

    def _fill(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Every text padded to the whole context with the id that the weights have learned as padding."""
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        tokens = torch.where(real, tokens, self.config.pad_id)
        return nn.functional.pad(tokens, (0, self.context_length - tokens.shape[1]), value=self.config.pad_id)
