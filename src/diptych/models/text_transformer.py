"""The text transformer of CLIP (causal, EOS), of SigLIP (sees everything, last position), and of BERT's kind."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.errors import DataError
from diptych.models.tower import TextTower, TextTowerConfig
from diptych.nn.block import BlockConfig, build_blocks, init_scaled
from diptych.nn.mask import Layout, MaskPlan, bidirectional, causal, padding
from diptych.nn.norm import build_norm
from diptych.nn.pool import Projection, build_projection, masked_mean, take_last


class TextTransformerConfig(TextTowerConfig, BlockConfig):
    """Settings of a text transformer; the block's are among them.

    attention   which tokens a token sees: "causal": those before it, "bidirectional": all real ones
    pooling     "eos": the last real token; "cls": the first; "mean" of the real ones; "last": the last place of the
                context, after padding every text to it with `pad_id` and letting padding be seen (SigLIP)
    projection  "none" needs width equal to the model's embed_dim
    """

    attention: Literal["causal", "bidirectional"] = "causal"
    pooling: Literal["eos", "cls", "mean", "last"] = "eos"
    pad_id: int = Field(default=0, ge=0)
    projection: Projection = "linear"

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

    def build(self, vocab_size: int, context_length: int, embed_dim: int) -> "TextTransformer":
        return TextTransformer(self, vocab_size, context_length, embed_dim)


class TextTransformer(TextTower):
    """Token and position embeddings, blocks, one of four poolings.

    Batches may be cut to their longest text: it is the same function. Under causal attention no real token sees the
    padding behind it, so no mask beyond the causal one is needed; otherwise padding is masked; and "last" pads again.
    First weights follow OpenAI's code: tokens N(0, 0.02^2), positions N(0, 0.01^2), blocks as in `init_scaled`.
    """

    def __init__(self, config: TextTransformerConfig, vocab_size: int, context_length: int, embed_dim: int) -> None:
        super().__init__()
        c = self.config = config
        self.width, self.context_length = c.width, context_length
        self.token_embed = nn.Embedding(vocab_size, c.width)
        self.position_embed = nn.Parameter(torch.randn(context_length, c.width) * 0.01)
        self.blocks = build_blocks(c)
        self.norm_final = build_norm(c.norm, c.width, c.norm_eps)
        self.projection = build_projection(c.projection, c.width, embed_dim, type(c).__name__)
        nn.init.normal_(self.token_embed.weight, std=0.02)
        init_scaled(self.blocks, c.width, max(c.depth, 1))

    def forward(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        x = self._encode(tokens, lengths)
        pooling = self.config.pooling
        if pooling == "mean":
            x = masked_mean(self.norm_final(x), lengths)
        else:  # norms act token by token: only the pooled one is needed
            x = take_last(x, lengths) if pooling == "eos" else x[:, 0 if pooling == "cls" else -1]
            x = self.norm_final(x)
        return x if self.projection is None else self.projection(x)

    def tokens(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b t d"]:
        return self.norm_final(self._encode(tokens, lengths)[:, : tokens.shape[1]])

    def decay_free(self) -> set[str]:
        return {"position_embed"}

    def _encode(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        if tokens.shape[1] > self.context_length:
            raise DataError(
                f"a text must have at most {self.context_length} tokens, this tower's context_length; got "
                f"{tokens.shape[1]}. Truncate with the model's own tokenizer."
            )
        if self.config.pooling == "last":
            tokens = self._padded(tokens, lengths)
        x = self.token_embed(tokens) + self.position_embed[: tokens.shape[1]]
        mask = self._mask(tokens, lengths)
        for block in self.blocks:
            x = block(x, mask)
        return x

    def _mask(self, tokens: Tensor, lengths: Tensor) -> MaskPlan | None:
        everything = self.config.attention == "causal" or self.config.pooling == "last"
        if everything:
            rule = causal() if self.config.attention == "causal" else bidirectional()
            return rule.plan(Layout.plain(tokens.shape[1], tokens.device))
        return padding().plan(Layout.of_lengths(lengths, tokens.shape[1]))

    def _padded(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Every text padded to the whole context with the id that the weights have learned as padding."""
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        tokens = torch.where(real, tokens, self.config.pad_id)
        return nn.functional.pad(tokens, (0, self.context_length - tokens.shape[1]), value=self.config.pad_id)
