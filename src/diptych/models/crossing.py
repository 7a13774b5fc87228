"""Where two modalities meet: encoders that look at the other one, and what makes pixels of their states.

MaskVLM (Kwon et al., 2023, arXiv:2208.02131); the encoders are those of ALBEF and BLIP as well.
"""

from jaxtyping import Float, Int64
from torch import Tensor, nn

from diptych.nn.block import BlockConfig, build_blocks, init_default
from diptych.nn.mask import Layout, MaskPlan, padding
from diptych.nn.norm import build_norm


class CrossEncoder(nn.Module):
    """Blocks of self-attention, attention to the other modality, and an MLP; then a norm, where the blocks do not end
    in one. Either side may be text, right-padded: then its lengths are given."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.blocks = build_blocks(config.replace(cross_attention="plain"))
        self.norm = closing_norm(config)
        init_default(self.blocks)

    def forward(
        self,
        x: Float[Tensor, "b s d"],
        context: Float[Tensor, "b k d"],
        lengths: Int64[Tensor, " b"] | None = None,
        context_lengths: Int64[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b s d"]:
        """`lengths` of x and of the context, on their device; None: all tokens are real."""
        mask = None if lengths is None else padding().plan(Layout.of_lengths(lengths, x.shape[1]))
        seen = context_plan(x, context, context_lengths)
        for block in self.blocks:
            x = block(x, mask, context, seen)
        return self.norm(x)


class PixelDecoder(nn.Module):
    """Blocks over an image's states, and a linear map from each cell's to the pixels of that cell."""

    def __init__(self, config: BlockConfig, cell: int) -> None:
        super().__init__()
        self.blocks = build_blocks(config)
        self.norm = closing_norm(config)
        self.head = nn.Linear(config.width, 3 * cell * cell)
        init_default(self.blocks)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, x: Float[Tensor, "b p d"], places: Int64[Tensor, "b k"], prefix: int = 0
    ) -> Float[Tensor, "b k c"]:
        """The pixels, normalised, of the cells at `places`; `prefix` tokens (CLS) come before the cells."""
        for block in self.blocks:
            x = block(x)
        at = (places + prefix)[..., None].expand(-1, -1, x.shape[-1])
        return self.head(self.norm(x.gather(1, at)))


def closing_norm(config: BlockConfig) -> nn.Module:
    """The norm behind the last block; blocks that end in norms (BERT's) have none."""
    return nn.Identity() if config.norm_position == "post" else build_norm(config.norm, config.width, config.norm_eps)


def context_plan(x: Tensor, context: Tensor, lengths: Int64[Tensor, " b"] | None) -> MaskPlan | None:
    """What keeps x from looking at padding of the context."""
    if lengths is None:
        return None
    return padding().plan(Layout.plain(x.shape[1], x.device), Layout.of_lengths(lengths, context.shape[1]))


def cells_of(images: Float[Tensor, "b 3 h w"], cell: int) -> Float[Tensor, "b n c"]:
    """The pixels of each cell of `cell` pixels' side, row by row, each flattened (3, cell, cell)."""
    x = images.unflatten(3, (-1, cell)).unflatten(2, (-1, cell))  # (b, 3, rows, cell, columns, cell)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def image_of(cells: Float[Tensor, "b n c"], cell: int, rows: int) -> Float[Tensor, "b 3 h w"]:
    """The images whose cells these are: what `cells_of` undoes."""
    x = cells.unflatten(2, (3, cell, cell)).unflatten(1, (rows, -1))  # (b, rows, columns, 3, cell, cell)
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
