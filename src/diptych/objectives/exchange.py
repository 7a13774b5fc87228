"""How the texts of all ranks come to the images of each: at once (gathered), or from rank to rank in a ring.

Both hand out the columns of the matrix of all images and all texts in blocks, and bring the gradient of each column,
of which every rank finds a part, back to the rank whose column it is. A single process has one block: its own.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.distributed import Passing, gather, pass_on, rank, sum_to_owners, world_size

Exchange = Literal["auto", "gather", "ring"]
"""How texts travel: "gather" holds those of all ranks on each, "ring" two ranks' at a time; "auto" chooses by size."""

RING_BYTES = 2**29
"""From this many bytes of gathered vectors on, "auto" is a ring. Below it one collective is faster than many."""


class Gathered:
    """All columns as one block; their gradient is summed by one collective."""

    def __init__(self, own: Float[Tensor, "b e"]) -> None:
        self.own = own
        self._all: Tensor | None = None

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(number of the first column, the block's columns)."""
        if self._all is None:
            self._all = gather(self.own).to(self.own.dtype)
        yield 0, self._all

    def blocks_with_gradient(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The same with a zeroed tensor for the gradient of each block: what is added there comes home afterwards."""
        for first, block in self.blocks():
            gradient = torch.zeros_like(block)
            yield first, block, gradient
            self.gradient: Tensor = sum_to_owners(gradient)  # (b, e) of this rank's own columns


class Ring:
    """Each rank's columns visit every rank, and what was found out about them travels along.

    While one block is worked on, the next one is on its way, and so is the sum of what earlier ranks found for it.
    """

    def __init__(self, own: Float[Tensor, "b e"]) -> None:
        self.own = own.contiguous()

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(number of the first column, the block's columns), this rank's own first."""
        size, world, block = len(self.own), world_size(), self.own
        for hop in range(world):
            coming = pass_on(block) if hop + 1 < world else None
            yield (rank() + hop) % world * size, block
            if coming is not None:
                block = coming.wait()

    def blocks_with_gradient(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The same with a zeroed tensor for the gradient of each block: what is added there comes home afterwards."""
        before: Passing | None = None  # what the ranks before this one found for the block at hand
        for first, block in self.blocks():
            gradient = torch.zeros_like(block)
            yield first, block, gradient
            if before is not None:
                gradient += before.wait()
            before = pass_on(gradient)
        assert before is not None  # there is always one block
        self.gradient: Tensor = before.wait()  # the last hop leads home


def exchange(own: Float[Tensor, "b e"], how: Exchange = "auto") -> Gathered | Ring:
    """The columns of all ranks, of which `own` are this rank's. Every rank must bring equally many."""
    large = own.numel() * own.element_size() * world_size() > RING_BYTES
    ring = world_size() > 1 and (how == "ring" or (how == "auto" and large))
    return Ring(own) if ring else Gathered(own)
