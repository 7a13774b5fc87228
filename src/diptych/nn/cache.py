"""Keys and values that were computed already, so that a decoder reads each token once.

Not for training: what is kept has no gradient that anyone would follow.
"""

from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.nn.mask import PADDING, TEXT, Layout

SPARE = 32
"""Places that are kept free when a buffer has to grow, so that it grows rarely."""


class KeyValues:
    """Keys and values of one attention, in the order in which they were read."""

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    @property
    def keys(self) -> Float[Tensor, "b n s k"]:
        """All keys so far."""
        return cast(Tensor, self._keys)[:, :, : self.length]

    @property
    def values(self) -> Float[Tensor, "b n s k"]:
        """All values so far."""
        return cast(Tensor, self._values)[:, :, : self.length]

    def extend(
        self, keys: Float[Tensor, "b n q k"], values: Float[Tensor, "b n q k"]
    ) -> tuple[Float[Tensor, "b n s k"], Float[Tensor, "b n s k"]]:
        """Add new ones behind the others; all of them."""
        new = self.length + keys.shape[2]
        self._keys, self._values = self._grown(self._keys, keys, new), self._grown(self._values, values, new)
        self.length = new
        return self.keys, self.values

    def select(self, rows: Int64[Tensor, " n"]) -> None:
        """Keep these rows of the batch, in this order; a row may come several times (beams, several answers)."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = self._keys.index_select(0, rows), self._values.index_select(0, rows)

    def copy(self) -> "KeyValues":
        """One that may be extended without changing this one."""
        other = KeyValues()
        other.length, other._keys, other._values = self.length, self._keys, self._values
        if self._keys is not None and self._values is not None:
            other._keys, other._values = self._keys.clone(), self._values.clone()
        return other

    def _grown(self, buffer: Tensor | None, new: Tensor, length: int) -> Tensor:
        if buffer is None:
            return new
        if buffer.shape[2] < length:
            more = new.new_empty(  # what lies beyond `length` is never read
                *new.shape[:2], max(length, 2 * self.length) + SPARE, new.shape[3]
            )
            more[:, :, : self.length] = buffer[:, :, : self.length]
            buffer = more
        buffer[:, :, self.length : length] = new
        return buffer


class LayerCache:
    """What one block keeps: of its own tokens, and of the context that it attends to (which never grows)."""

    def __init__(self) -> None:
        self.own, self.context = KeyValues(), KeyValues()

    def copy(self) -> "LayerCache":
        """A copy that lives its own life."""
        other = LayerCache()
        other.own, other.context = self.own.copy(), self.context.copy()
        return other


class Cache:
    """What a decoder of `depth` blocks has read: keys and values, and what each of the tokens was (`Layout`)."""

    def __init__(self, depth: int) -> None:
        self.layers = [LayerCache() for _ in range(depth)]
        self.ragged = False  # whether there is padding among the tokens read
        self._segment: Tensor | None = None
        self._modality: Tensor | None = None
        self._position: Tensor | None = None

    @property
    def length(self) -> int:
        """Places read so far, padding among them."""
        return 0 if self._position is None else self._position.shape[1]

    def add(
        self,
        position: Int64[Tensor, "b q"],
        real: Int64[Tensor, " b"] | None = None,
        modality: Int64[Tensor, "b q"] | None = None,
    ) -> tuple[Layout, Layout]:
        """Note q new places, of which the first `real` (None: all) of each row are tokens: their Layout, and that of
        all places so far. `real` lies on the host."""
        rows, count = position.shape
        device = position.device
        segment = torch.zeros(rows, count, dtype=torch.int64, device=device)
        if real is not None and count and bool((real < count).any()):
            self.ragged = True
            kept = torch.arange(count, device=device) < real.to(device)[:, None]
            segment = torch.where(kept, 0, PADDING)
        if modality is None:
            modality = torch.full_like(segment, TEXT)
        query = Layout(count, segment, modality, position, device)
        self._segment, self._modality = _behind(self._segment, segment), _behind(self._modality, modality)
        self._position = _behind(self._position, position)
        return query, Layout(self.length, self._segment, self._modality, self._position, device)

    def select(self, rows: Int64[Tensor, " n"]) -> None:
        """Keep these rows of the batch, in this order."""
        for layer in self.layers:
            layer.own.select(rows)
            layer.context.select(rows)
        if self._segment is not None and self._modality is not None and self._position is not None:
            self._segment, self._modality = self._segment[rows], self._modality[rows]
            self._position = self._position[rows]

    def copy(self) -> "Cache":
        """A copy that may go on by itself."""
        other = Cache(0)
        other.layers = [layer.copy() for layer in self.layers]
        other.ragged = self.ragged
        other._segment, other._modality, other._position = self._segment, self._modality, self._position
        return other


def _behind(before: Tensor | None, new: Tensor) -> Tensor:
    return new if before is None else torch.cat([before, new], dim=1)
