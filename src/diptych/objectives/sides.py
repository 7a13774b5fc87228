"""Records of which some have no image and some no text: each side in its row, and modules that see only some rows.

For objectives that read a batch's records in several ways. What must be known of a record to choose shapes lies on the
host.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import all_sum, world_size
from diptych.core.errors import DataError
from diptych.models.model import Model
from diptych.nn.packing import host_lengths


class Rows(NamedTuple):
    """Some of a batch's rows. Two at least where there are two, so that no module is passed over on one rank alone and
    batch norms have something to go by: `counts` is 0 for those that were taken only for that.

    at, host  their numbers, on the device and on the host
    """

    at: Int64[Tensor, " n"]
    host: Int64[Tensor, " n"]
    counts: Float[Tensor, " n"]

    @classmethod
    def of(cls, chosen: Bool[Tensor, " b"], device: torch.device) -> "Rows":
        """The rows that are `chosen`, which lies on the host."""
        found = chosen.nonzero()[:, 0]
        others = (~chosen).nonzero()[:, 0][: max(0, 2 - len(found))]
        at = torch.cat([found, others])
        counts = (torch.arange(len(at)) < len(found)).float()
        return cls(at.to(device), at, counts.to(device))


class Sides(NamedTuple):
    """A batch with an image and a text in each record's row, and which of them are there (on the host)."""

    images: Tensor
    tokens: Int64[Tensor, "b t"]
    lengths: Int64[Tensor, " b"]
    has_image: Bool[Tensor, " b"]
    has_text: Bool[Tensor, " b"]

    def texts(self, rows: Rows) -> tuple[Int64[Tensor, "n t"], Int64[Tensor, " n"]]:
        """Tokens and lengths of some rows; one without a text gets a token, so that there is something to encode."""
        lengths = self.lengths[rows.host if self.lengths.device.type == "cpu" else rows.at]
        return self.tokens[rows.at], lengths.clamp_min(1)

    def ids(self, batch: Batch, device: torch.device) -> dict[str, Int64[Tensor, " b"]]:
        """ "text_id" and "image_id", a row a record, where the batch has them; 0 for an image that is not there."""
        found = {} if batch.text_ids is None else {"text_id": batch.text_ids.to(device)}
        if batch.image_ids is not None:
            at = self.has_image.nonzero()[:, 0].to(device)
            found["image_id"] = spread(batch.image_ids.to(device), at, batch.size)
        return found


def sides_of(batch: Batch, model: Model) -> Sides:
    """An image and a text for each record, blank where it has none.

    Raises DataError for a batch of neither, and where a record has several images.
    """
    b, tokens, lengths, device = batch.size, batch.tokens, batch.lengths, model.pixel_mean.device
    images, record = batch.images, batch.image_record
    if images is None and tokens is None:
        raise DataError("a batch must hold images, texts or both; got neither. Use data that has them.")
    if tokens is None or lengths is None:
        tokens, lengths = torch.zeros(b, 1, dtype=torch.int64, device=device), torch.zeros(b, dtype=torch.int64)
    has_text, has_image = host_lengths(lengths, tokens.shape[1]) > 0, torch.zeros(b, dtype=torch.bool)
    if images is None:
        side = model.config.image_format.resolution
        images = torch.zeros(b, 3, side, side, dtype=torch.uint8, device=device)
    elif len(images) == b and (batch.image_position is None or record is None):
        has_image.fill_(True)
    elif record is None or len(record.unique()) < len(images):
        raise DataError(
            f"a batch must hold one image a record at most; got {len(images)} images for {b} records. Use pairs, "
            "images and texts."
        )
    else:
        has_image[record.cpu()] = True
        images = spread(images, record.to(images.device), b)
    return Sides(images, tokens, lengths, has_image, has_text)


def spread(x: Tensor, at: Int64[Tensor, " n"], b: int) -> Tensor:
    """`b` rows, of which those at `at` are the n of `x` and the others zero."""
    return x.new_zeros(b, *x.shape[1:]).index_copy(0, at, x)


def share_of_mean(counts: Tensor) -> Float[Tensor, ""]:
    """What a sum over this rank's terms is multiplied with to be its part of the mean over all ranks' terms, of which
    `counts` says how many are here: the mean over ranks of W S_r / C is the sum of all S_r over all C."""
    return world_size() / all_sum(counts.detach().sum()).clamp_min(1)
