"""The only thing that passes between the data room and the model rooms: a collated batch of tensors."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Decoded and collated records (b of them), still on the CPU until `to` is called.

    images         uint8 pixels, RGB; normalised on the device by the model, so that a quarter of the bytes travel
    patches        in place of images: only those patches of theirs that the model will look at, uint8, flattened
                   channel by channel; patch_index are their places in an image of patch_grid (rows, columns) patches
    image_record   which of the b records each of the i images belongs to; arange(b) for pairs
    tokens         token ids, right-padded with the tokenizer's pad id; columns beyond the longest row are cut
    lengths        number of real tokens of each row, specials counted; never to be inferred from the ids. They stay on
                   the host, where shapes are decided: no device is waited for
    loss_mask      which tokens bear loss; None: all that are not padding
    image_ids      64-bit hash of each image's content; equal content, equal id (duplicate-aware objectives)
    text_ids       64-bit hash of each caption drawn
    sample_ids     n of each sample, its place in the run's order (seed, n): what resume counts
    cached         vectors of towers that were computed once (`train.freeze`), by modality ("image", "text"), a row a
                   record; the images or tokens they stand for are then absent
    truncated      how many of the texts lost their end to the context length
    meta           free values that never meet the model (keys, labels, ...)
    """

    images: UInt8[Tensor, "i 3 h w"] | None = None
    patches: UInt8[Tensor, "i k c"] | None = None
    patch_index: Int64[Tensor, "i k"] | None = None
    patch_grid: tuple[int, int] | None = None
    image_record: Int64[Tensor, " i"] | None = None
    tokens: Int64[Tensor, "b t"] | None = None
    lengths: Int64[Tensor, " b"] | None = None
    loss_mask: Bool[Tensor, "b t"] | None = None
    image_ids: Int64[Tensor, " i"] | None = None
    text_ids: Int64[Tensor, " b"] | None = None
    sample_ids: Int64[Tensor, " b"] | None = None
    weights: Float[Tensor, " b"] | None = None
    cached: dict[str, Float[Tensor, "b _"]] | None = None
    truncated: int = 0
    meta: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """Number of records."""
        for t in (self.sample_ids, self.tokens, self.images, *(self.cached or {}).values()):
            if t is not None:
                return t.shape[0]
        return 0

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device` (asynchronously from pinned memory), `lengths` excepted."""
        moved = self._map(lambda t: t.to(device, non_blocking=True))
        return replace(moved, lengths=self.lengths)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (torch's DataLoader calls this by name)."""
        return self._map(lambda t: t.pin_memory())

    def slice(self, start: int, stop: int) -> "Batch":
        """Records `start` to `stop`, for micro-batches. Needs one image a record (pairs)."""
        images = self.images if self.patches is None else self.patches
        if images is not None and images.shape[0] != self.size:
            raise NotImplementedError("slicing needs exactly one image a record")
        part = self._map(lambda t: t[start:stop])
        if part.image_record is not None:
            part = replace(part, image_record=part.image_record - start)
        return part

    def _map(self, f: Any) -> "Batch":
        mapped = {x.name: f(v) for x in fields(self) if isinstance(v := getattr(self, x.name), Tensor)}
        cached = None if self.cached is None else {k: f(v) for k, v in self.cached.items()}
        return replace(self, **mapped, cached=cached)
