"""A matrix of all images and all texts that is never there as a whole: how it is cut, and whose gradient is wanted."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.objectives.exchange import Exchange, exchange
from diptych.objectives.same_pairs import SamePairs


class TileSize(NamedTuple):
    """rows and columns of a tile, and how many logits may be kept from a first pass for the second one."""

    rows: int
    columns: int
    kept: int


def tile_size(device: torch.device) -> TileSize:
    """What suits a device.

    On the CPU two tiles of 4 MiB stay in its cache between the product that writes a tile and the passes over it
    (measured at 512 dimensions: from 512 x 512 to 2048 x 512 all within 3 %, larger ones slower). A GPU must be given
    work for all of its cores. 256 MiB of logits are kept, which is all of them up to a batch of 8,192: one product in
    four is saved, and beyond it memory grows with the number of vectors only.
    """
    side = 1024 if device.type == "cpu" else 4096
    return TileSize(side, side, 2**26)


class Tile(NamedTuple):
    """A place in the matrix: this rank's rows, the columns within their block, and the columns' numbers among all g."""

    rows: slice
    inside: slice
    columns: slice

    def own(self, matrix: Float[Tensor, "r c"], first: int) -> tuple[slice, Tensor]:
        """The rows of all b, and the entries of the tile, in which a row meets its own column (a view, often empty).

        `first` is the number among all g of this rank's first pair.
        """
        place = first + self.rows.start - self.columns.start
        entries = matrix.diagonal(place)
        start = self.rows.start + max(0, -place)
        return slice(start, start + len(entries)), entries


def tiles(rows: int, first_column: int, columns: int, size: TileSize) -> Iterator[Tile]:
    """The tiles of a block of columns, whose first one has the number `first_column`."""
    for c in range(0, columns, size.columns):
        inside = slice(c, min(c + size.columns, columns))
        outside = slice(first_column + inside.start, first_column + inside.stop)
        for r in range(0, rows, size.rows):
            yield Tile(slice(r, min(r + size.rows, rows)), inside, outside)


class Scratch:
    """Memory of one tile, used again for each."""

    def __init__(self, like: Tensor, size: TileSize, rows: int, columns: int) -> None:
        self._memory = like.new_empty(min(size.rows, rows) * min(size.columns, columns))

    def __call__(self, tile: Tile) -> Float[Tensor, "r c"]:
        """Room for `tile`, with whatever is in it."""
        shape = (tile.rows.stop - tile.rows.start, tile.inside.stop - tile.inside.start)
        return self._memory[: shape[0] * shape[1]].view(shape)


class Pairs(NamedTuple):
    """What the losses over the matrix of all images and all texts are computed from. No gradient flows through it.

    image  (b, e) of this rank;  text  (b, e) of this rank;  scale, bias  factor and summand of the cosines
    same   the duplicates among all pairs; None: there are none, or they do not matter
    first  number among all g pairs of this rank's first one
    """

    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor | None
    same: SamePairs | None
    first: int
    pairs: int
    size: TileSize
    exchange: Exchange = "auto"


class Wanted(NamedTuple):
    """Whose gradient is needed: the images', the texts', that of scale and bias."""

    image: bool
    text: bool
    numbers: bool

    @classmethod
    def of(cls, image: Tensor, text: Tensor, *numbers: Tensor) -> "Wanted":
        """What autograd will ask for."""
        on = torch.is_grad_enabled()
        return cls(on and image.requires_grad, on and text.requires_grad, on and any(x.requires_grad for x in numbers))

    @property
    def any(self) -> bool:
        """Whether one is needed at all."""
        return self.image or self.text or self.numbers


class _WithGradient(torch.autograd.Function):
    """A value whose gradient is known already: the backward pass only scales it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor | None, ...], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, None, *(None if g is None else grad * g for g in ctx.saved_tensors)


def with_gradient(value: Float[Tensor, ""], gradients: list[tuple[Tensor, Tensor | None]]) -> Float[Tensor, ""]:
    """`value` as a function of tensors, each given with the gradient of the value by it (None: it has none).

    Can be differentiated once. Computing value and gradient together saves what would have to be kept between them.
    """
    return _WithGradient.apply(value, tuple(g for _, g in gradients), *(x for x, _ in gradients))


@torch.no_grad()
def best_texts(pairs: Pairs) -> Float[Tensor, " b"]:
    """1 for each image whose own text has the largest cosine among all texts, else 0. A collective."""
    image, b = pairs.image, len(pairs.image)
    best = image.new_full((b,), -torch.inf)
    number = torch.zeros(b, dtype=torch.long, device=image.device)
    room = None
    for first, block in exchange(pairs.text, pairs.exchange).blocks():
        room = room or Scratch(image, pairs.size, b, len(block))
        for tile in tiles(b, first, len(block), pairs.size):
            cosine = torch.mm(image[tile.rows], block[tile.inside].T, out=room(tile))
            largest, where = cosine.max(1)
            where += tile.columns.start
            so_far = best[tile.rows]
            # blocks come in any order, and the first of equals counts
            better = (largest > so_far) | ((largest == so_far) & (where < number[tile.rows]))
            best[tile.rows] = torch.where(better, largest, so_far)
            number[tile.rows] = torch.where(better, where, number[tile.rows])
    return (number == torch.arange(b, device=image.device) + pairs.first).float()
