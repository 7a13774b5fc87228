"""The Q-Former: learned queries ask an image's tokens, and what they learn is projected (BLIP-2, MiniGPT-4).

In the second stage of BLIP-2 it stands alone; in the first one (`models/blip2.py`) a text is read beside the queries.
The names are the same in both, so that the second stage begins with what the first one learned.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.models.connectors.connector import Connector, ConnectorConfig, Given
from diptych.nn.cache import Cache
from diptych.nn.mask import MaskPlan
from diptych.nn.mlp import Activation
from diptych.nn.norm import build_norm
from diptych.nn.qformer import QFormerBlock, init_bert


class QFormerConfig(ConnectorConfig):
    """Settings of a Q-Former. BLIP-2's is BERT-base: width 768, depth 12, heads 12, and 32 queries.

    queries      learned vectors, each of which becomes a token
    cross_every  queries attend to the image in every so many blocks, beginning with the first
    """

    queries: int = Field(default=32, gt=0)
    width: int = Field(default=256, gt=0)
    depth: int = Field(default=6, gt=0)
    heads: int = Field(default=4, gt=0)
    mlp_ratio: float = Field(default=4.0, gt=0)
    activation: Activation = "gelu"
    norm_eps: float = Field(default=1e-12, gt=0)
    cross_every: int = Field(default=2, gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> "QFormerConfig":
        if self.width % self.heads:
            raise ValueError(
                f"QFormerConfig.width must be a multiple of heads; got width {self.width}, heads {self.heads}. "
                "Heads are usually width / 64."
            )
        return self

    def build(self, given: Given, width: int) -> "QFormerConnector":
        return QFormerConnector(self, given, width)


class QFormer(nn.Module):
    """Queries, the norm of embeddings, and blocks. `reads`: whether there are MLPs for a text beside the queries.

    First weights are BERT's: N(0, 0.02^2), biases zero, queries alike.
    """

    def __init__(self, config: QFormerConfig, context_width: int, reads: bool) -> None:
        super().__init__()
        c, hidden = config, round(config.width * config.mlp_ratio)
        self.depth, self.width = c.depth, c.width
        self.queries = nn.Parameter(torch.randn(c.queries, c.width) * 0.02)
        self.norm_embed = build_norm("layer", c.width, c.norm_eps)
        self.blocks = nn.ModuleList(
            QFormerBlock(
                c.width, c.heads, hidden, c.activation, c.norm_eps, context_width, i % c.cross_every == 0, reads
            )
            for i in range(c.depth)
        )
        init_bert(self.blocks)

    def forward(
        self,
        context: Float[Tensor, "b p c"] | None,
        text: Float[Tensor, "b t d"] | None = None,
        mask: MaskPlan | None = None,
        reading: Cache | None = None,
    ) -> Float[Tensor, "b s d"]:
        """The states of the queries, if a context is given for them to ask, and of a text's embeddings behind them.

        `mask` is over queries and text; with `reading`, over what was read before, too.
        """
        rows = [] if context is None else [self.queries.expand(len(context), -1, -1)]
        rows += [] if text is None else [text]
        x = self.norm_embed(torch.cat(rows, dim=1) if len(rows) > 1 else rows[0])
        for i, block in enumerate(self.blocks):
            layer = None if reading is None else reading.layers[i]
            x = block(x, 0 if context is None else len(self.queries), mask, context, layer)
        return x

    def decay_free(self) -> set[str]:
        """Names (relative to this module) of parameters of two or more dimensions that must not be decayed."""
        return {"queries"}


class QFormerConnector(QFormer, Connector):
    """The half that asks, then one linear map to the language model: first weights N(0, 1/width), biases zero."""

    begins_fresh: ClassVar[tuple[str, ...]] = ("proj.*",)
    """What the first stage of BLIP-2 does not bring."""

    def __init__(self, config: QFormerConfig, given: Given, width: int) -> None:
        super().__init__(config, given.width, reads=False)
        self.tokens = config.queries
        self.proj = nn.Linear(config.width, width)
        nn.init.normal_(self.proj.weight, std=config.width**-0.5)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Float[Tensor, "i p c"]) -> Float[Tensor, "i m d"]:  # type: ignore[override]
        return self.proj(super().forward(x))
