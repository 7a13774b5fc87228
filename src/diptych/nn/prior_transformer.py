"""The transformer of unCLIP's prior (Ramesh et al., 2022, arXiv:2204.06125, section 2.2): one row of text tokens, text
vector, time, noised image vector and a query, whose output is the image vector."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diptych.nn.block import BlockConfig, build_blocks, init_scaled, through_blocks
from diptych.nn.denoiser import TwoLayers, time_waves
from diptych.nn.mask import PADDING, Layout, causal, padding

EXTRA = 4
"""Tokens behind the text: its vector, the time, the noised image vector, the query."""


class PriorTransformer(nn.Module):
    """Causal blocks over [t text tokens, text vector, time, noised vector, query]; the query's output, through a norm
    and a linear map, is the answer. Padding between the text and the rest is not seen.

    The vectors that it foresees are (unit vector - mean) / std of two tables that are kept with the weights: at first 0
    and 1 / sqrt(e), so that their numbers spread by about 1, as the noise does.

    First weights: positions and query N(0, 0.01^2), blocks as in `init_scaled`, linear maps torch's.
    """

    def __init__(self, config: BlockConfig, context_length: int, text_width: int, embed_dim: int) -> None:
        super().__init__()
        c = self.config = config
        self.context_length, self.embed_dim = context_length, embed_dim
        self.text_in, self.vector_in = nn.Linear(text_width, c.width), nn.Linear(embed_dim, c.width)
        self.noised_in, self.time_embed = nn.Linear(embed_dim, c.width), TwoLayers(c.width, c.width)
        self.query = nn.Parameter(torch.randn(c.width) * 0.01)
        self.position_embed = nn.Parameter(torch.randn(context_length + EXTRA, c.width) * 0.01)
        self.blocks = build_blocks(c)
        self.norm_final = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, embed_dim)
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("std", torch.full((embed_dim,), embed_dim**-0.5))
        init_scaled(self.blocks, c.width, max(c.depth, 1))

    mean: Tensor
    std: Tensor

    def forward(
        self,
        noised: Float[Tensor, "b e"],
        times: Float[Tensor, " b"],
        tokens: Float[Tensor, "b t c"],
        lengths: Int64[Tensor, " b"],
        vector: Float[Tensor, "b e"],
    ) -> Float[Tensor, "b e"]:
        """The image vector (or whatever the schedule asks for); texts shorter than the context are padded here, so that
        the width of a batch changes nothing."""
        b, t = tokens.shape[:2]
        words = nn.functional.pad(self.text_in(tokens), (0, 0, 0, self.context_length - t))
        rest = [
            self.vector_in(vector),
            self.time_embed(time_waves(times, self.config.width)),
            self.noised_in(noised),
            self.query.to(words.dtype).expand(b, -1),
        ]
        x = torch.cat([words, torch.stack([r.to(words.dtype) for r in rest], dim=1)], dim=1) + self.position_embed
        places = torch.arange(self.context_length + EXTRA, device=x.device)
        hidden = (places >= lengths[:, None]) & (places < self.context_length)
        layout = Layout(len(places), segment=torch.where(hidden, PADDING, 0), device=x.device)
        x = through_blocks(self.blocks, x, (causal() & padding()).plan(layout))
        return self.head(self.norm_final(x[:, -1]))

    def decay_free(self) -> set[str]:
        """Positions."""
        return {"position_embed"}
