"""The block of the Q-Former (Li et al., 2023, arXiv:2301.12597, section 3.1): learned queries beside a text."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diptych.nn.attention import Attention
from diptych.nn.cache import LayerCache
from diptych.nn.mask import (
    PADDING,
    QUERY,
    TEXT,
    Layout,
    Mask,
    MaskPlan,
    block_diagonal,
    padding,
    query_isolated,
    query_visible,
)
from diptych.nn.mlp import MLP, Activation
from diptych.nn.norm import build_norm

Seen = Literal["isolated", "full", "visible"]
"""What queries and text see of each other. "isolated": nothing (contrastive); "full": everything (matching); "visible":
the text, which is causal, sees the queries, and they see only each other (generation)."""

_RULES: dict[str, Mask] = {
    "isolated": query_isolated() & padding(),
    "full": padding(),
    "visible": query_visible() & padding(),
}


class QFormerBlock(nn.Module):
    """Self-attention over queries and text; the queries alone attend to the image; an MLP for the queries and another
    for the text. Norms come after each sum, as in BERT.

    `crosses`: whether there is attention to a context, of width `context_width`; `reads`: whether there is an MLP for a
    text (the second stage has none).
    """

    recomputable: ClassVar[bool] = True
    """See nn/checkpointing.py."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_width: int,
        activation: Activation = "gelu",
        eps: float = 1e-12,
        context_width: int = 0,
        crosses: bool = True,
        reads: bool = True,
    ) -> None:
        super().__init__()
        self.attention, self.norm_1 = Attention(width, heads), build_norm("layer", width, eps)
        if crosses:
            self.cross_attention: Attention | None = Attention(width, heads, context_width=context_width or None)
            self.norm_cross: nn.Module | None = build_norm("layer", width, eps)
        else:
            self.cross_attention, self.norm_cross = None, None
        self.mlp, self.norm_2 = MLP(width, mlp_width, activation), build_norm("layer", width, eps)
        self.text_mlp = MLP(width, mlp_width, activation) if reads else None
        self.norm_text = build_norm("layer", width, eps) if reads else None

    def forward(
        self,
        x: Float[Tensor, "b s d"],
        queries: int,
        mask: MaskPlan | None = None,
        context: Float[Tensor, "b p c"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "b s d"]:
        """The first `queries` of the tokens are queries, the others text. `cache` holds what was read before x."""
        x = self.norm_1(x + self.attention(x, mask, cache=None if cache is None else cache.own))
        asked, text = x[:, :queries], x[:, queries:]
        if queries:
            if self.cross_attention is not None and self.norm_cross is not None:
                asked = self.norm_cross(asked + self.cross_attention(asked, None, context))
            asked = self.norm_2(asked + self.mlp(asked))
        if not text.shape[1]:
            return asked
        assert self.text_mlp is not None
        assert self.norm_text is not None
        text = self.norm_text(text + self.text_mlp(text))
        return torch.cat([asked.to(text.dtype), text], dim=1) if queries else text


def init_bert(blocks: nn.Module, std: float = 0.02) -> None:
    """BERT's first weights: N(0, std^2), biases zero."""
    for linear in (m for m in blocks.modules() if isinstance(m, nn.Linear)):
        nn.init.normal_(linear.weight, std=std)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)


def query_mask(queries: int, lengths: Int64[Tensor, " b"], width: int, seen: Seen) -> MaskPlan | None:
    """Who sees whom in rows of `queries` learned queries and a text of `lengths` tokens padded to `width`.

    `lengths` lie where the tokens are. Without padding (lengths on the host, all as long as `width`) there is no matrix
    for "full".
    """
    if seen == "full" and lengths.device.type == "cpu" and bool((lengths == width).all()):
        return None
    return _RULES[seen].plan(_layout(queries, lengths, width, ((0, True),)))


def twofold_mask(queries: int, lengths: Int64[Tensor, " b"], width: int) -> MaskPlan | None:
    """Who sees whom in rows of queries, a text, and the same text again: contrastive pass and generation pass in one.
    Queries see only each other in both, so that they are computed once.

    The first text is a segment of its own whose tokens all stand at one position, so that the causal rule lets each see
    all; the second one is of the queries' segment.
    """
    return (block_diagonal() & query_visible()).plan(_layout(queries, lengths, width, ((1, False), (0, True))))


def _layout(queries: int, lengths: Tensor, width: int, texts: tuple[tuple[int, bool], ...]) -> Layout:
    """Rows of queries (segment 0) and `texts`: (the segment of each, whether its tokens are in order)."""
    device, rows, place = lengths.device, len(lengths), torch.arange(width, device=lengths.device)
    real, first = place < lengths[:, None], torch.zeros(rows, queries, dtype=torch.int64, device=device)
    segment = torch.cat([first, *(torch.where(real, number, PADDING) for number, _ in texts)], dim=1)
    position = torch.cat([first, *((place if ordered else 0 * place).expand(rows, -1) for _, ordered in texts)], dim=1)
    modality = torch.full_like(segment, TEXT)
    modality[:, :queries] = QUERY
    return Layout(segment.shape[1], segment, modality, position, device)
