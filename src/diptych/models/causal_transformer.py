"""The causal transformer of the house: GPT's, OPT's, LLaMA's and BERT-as-decoder's kind, by settings."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.models.language import BeforeBlock, Language, LanguageConfig
from diptych.nn.block import BlockConfig, build_blocks, init_scaled
from diptych.nn.cache import Cache
from diptych.nn.mask import MaskPlan
from diptych.nn.norm import build_norm
from diptych.nn.rotary import rotary


class CausalTransformerConfig(LanguageConfig, BlockConfig):
    """Settings of a language model; the block's are among them.

    positions   "rope" turns queries and keys (LLaMA), "learned" adds a vector a place (GPT, OPT), "none" adds nothing
    counted     what learned positions count: places in the whole "sequence", images' tokens included, or in the "text"
                alone, whose tokens are then complete before images' join them (GIT)
    tied        logits from the token embeddings; else from a matrix of their own
    head_bias   whether logits have a bias
    norm_embed  a norm on the embeddings (BERT, GIT)
    norm_final  a norm behind the last block
    """

    width: int = Field(default=512, gt=0)
    depth: int = Field(default=8, ge=0)
    heads: int = Field(default=8, gt=0)
    positions: Literal["rope", "learned", "none"] = "rope"
    rope_theta: float = Field(default=10_000.0, gt=0)
    counted: Literal["sequence", "text"] = "sequence"
    tied: bool = True
    head_bias: bool = False
    norm_embed: bool = False
    norm_final: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "CausalTransformerConfig":
        if self.positions == "rope" and self.width // self.heads % 2:
            raise ValueError(
                f"CausalTransformerConfig.width / heads must be even for rotary positions; got {self.width} / "
                f"{self.heads}. Change either, or set positions=learned."
            )
        if self.counted == "text" and self.positions == "rope":
            raise ValueError(
                "CausalTransformerConfig.counted must be 'sequence' with rotary positions, which are those of all "
                "tokens; got 'text'. Set positions=learned."
            )
        return self

    def build(self, vocab_size: int, context_length: int) -> "CausalTransformer":
        return CausalTransformer(self, vocab_size, context_length)

    def token_width(self) -> int:
        return self.width


class CausalTransformer(Language):
    """Token embeddings, positions, blocks, a last norm, a head. First weights follow GPT-2: embeddings N(0, 0.02^2),
    learned positions N(0, 0.01^2), blocks as in `init_scaled`."""

    def __init__(self, config: CausalTransformerConfig, vocab_size: int, context_length: int) -> None:
        super().__init__()
        c = self.config = config
        self.width, self.depth, self.vocab_size, self.context_length = c.width, c.depth, vocab_size, context_length
        self.token_embed = nn.Embedding(vocab_size, c.width)
        learned = torch.randn(context_length, c.width) * 0.01 if c.positions == "learned" else None
        self.position_embed = None if learned is None else nn.Parameter(learned)
        self.norm_embed = build_norm(c.norm, c.width, c.norm_eps) if c.norm_embed else None
        self.blocks = build_blocks(c)
        self.norm_final = build_norm(c.norm, c.width, c.norm_eps) if c.norm_final else None
        self.lm_head = None if c.tied else nn.Linear(c.width, vocab_size, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(vocab_size)) if c.head_bias else None
        nn.init.normal_(self.token_embed.weight, std=0.02)
        if self.lm_head is not None:
            nn.init.normal_(self.lm_head.weight, std=0.02)
        init_scaled(self.blocks, c.width, max(c.depth, 1))

    def embed(self, tokens: Int64[Tensor, "b t"], start: Int64[Tensor, " b"] | None = None) -> Float[Tensor, "b t d"]:
        x = self.token_embed(tokens)
        if self.config.counted == "sequence":
            return x
        places = torch.arange(tokens.shape[1], device=tokens.device)[None]
        return self._placed(x, places if start is None else places + start[:, None])

    def begin(self) -> Cache:
        return Cache(self.depth)

    def forward(
        self,
        x: Float[Tensor, "r l d"],
        mask: MaskPlan | None,
        positions: Int64[Tensor, "#r l"],
        reading: Cache | None = None,
        before: BeforeBlock | None = None,
        context: Float[Tensor, "r k c"] | None = None,
        only: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "r l d"] | Float[Tensor, "n d"]:
        c = self.config
        if c.counted == "sequence":
            x = self._placed(x, positions)
        turns = rotary(positions, c.width // c.heads, c.rope_theta) if c.positions == "rope" else None
        for i, block in enumerate(self.blocks):
            if before is not None:
                x = before(i, x)
            layer = None if reading is None else reading.layers[i]
            x = block(x, mask, context, None, only if i == self.depth - 1 else None, turns, layer)
        if only is not None and not self.depth:
            x = x.flatten(0, 1).index_select(0, only)
        return x if self.norm_final is None else self.norm_final(x)

    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        weight = self.token_embed.weight if self.lm_head is None else self.lm_head.weight
        return weight, self.head_bias

    def decay_free(self) -> set[str]:
        return set() if self.position_embed is None else {"position_embed"}

    def _placed(self, x: Tensor, positions: Tensor) -> Tensor:
        """With learned positions and the norm of embeddings, where there are such."""
        if self.position_embed is not None:
            x = x + nn.functional.embedding(positions, self.position_embed)
        return x if self.norm_embed is None else self.norm_embed(x)
