"""The only thing that passes between the data room and the model rooms: a collated batch of tensors."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from diptych.core.errors import DataError

_OF_IMAGES = ("images", "patches", "patch_index", "image_position", "image_ids")
"""What has a row an image, where records hold several."""
_ON_HOST = ("lengths", "loss_mask", "image_record", "image_position")


@dataclass(frozen=True)
class Batch:
    """Decoded and collated records (b of them), still on the CPU until `to` is called.

    images         uint8 pixels, RGB; normalised on the device by the model, so that a quarter of the bytes travel
    patches        in place of images: only those patches of theirs that the model will look at, uint8, flattened
                   channel by channel; patch_index are their places in an image of patch_grid (rows, columns) patches
    image_record   which of the b records each of the i images belongs to, ascending; arange(b) for pairs
    image_position before which text token of its record's row each image stands; None: one image a record, before its
                   first token
    tokens         token ids, right-padded with the tokenizer's pad id; columns beyond the longest row are cut
    lengths        number of real tokens of each row, specials counted; never to be inferred from the ids. They stay on
                   the host, where shapes are decided, as do loss_mask and images' places: no device is waited for
    loss_mask      which tokens bear loss as targets; None: all real ones but the first of each row
    image_ids      64-bit hash of each image's content; equal content, equal id (duplicate-aware objectives)
    text_ids       64-bit hash of each caption drawn
    sample_keys    63-bit number that decides all that is drawn for a sample (crop, masks, noise): a function of the
                   run's seed and of sample_ids
    word_starts    which tokens begin a word, where an objective asks for "words"
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
    image_position: Int64[Tensor, " i"] | None = None
    tokens: Int64[Tensor, "b t"] | None = None
    lengths: Int64[Tensor, " b"] | None = None
    loss_mask: Bool[Tensor, "b t"] | None = None
    image_ids: Int64[Tensor, " i"] | None = None
    text_ids: Int64[Tensor, " b"] | None = None
    sample_ids: Int64[Tensor, " b"] | None = None
    sample_keys: Int64[Tensor, " b"] | None = None
    word_starts: Bool[Tensor, "b t"] | None = None
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
        """The same batch with its tensors on `device` (asynchronously from pinned memory), but for what decides shapes:
        `lengths`, `loss_mask` and the places of images stay on the host."""
        moved = self._map(lambda t: t.to(device, non_blocking=True))
        return replace(moved, **{name: getattr(self, name) for name in _ON_HOST})

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (torch's DataLoader calls this by name)."""
        return self._map(lambda t: t.pin_memory())

    def slice(self, start: int, stop: int) -> "Batch":
        """Records `start` to `stop`, for micro-batches, with the images that belong to them."""
        part = self._map(lambda t: t[start:stop])
        images = self.images if self.patches is None else self.patches
        if self.image_record is None:
            return part
        if self.image_position is None:  # pairs: nothing is read back from a device
            if images is not None and images.shape[0] != self.size:
                raise DataError(
                    f"images must be one a record where image_position is not given; got {images.shape[0]} for "
                    f"{self.size} records. Give each image's place in the text."
                )
            return replace(part, image_record=self.image_record[start:stop] - start)
        chosen = (self.image_record >= start) & (self.image_record < stop)
        of_images: dict[str, Any] = {n: None if (t := getattr(self, n)) is None else t[chosen] for n in _OF_IMAGES}
        return replace(part, **of_images, image_record=self.image_record[chosen] - start)

    def _map(self, f: Any) -> "Batch":
        mapped = {x.name: f(v) for x in fields(self) if isinstance(v := getattr(self, x.name), Tensor)}
        cached = None if self.cached is None else {k: f(v) for k, v in self.cached.items()}
        return replace(self, **mapped, cached=cached)
