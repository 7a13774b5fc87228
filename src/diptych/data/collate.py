"""Samples to one Batch: pixels varied and brought to one size, texts as ids, hashes that tell duplicates."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import DataError
from diptych.core.image_format import ImageFormat
from diptych.data.album import Album
from diptych.data.captions import Captions, Texts
from diptych.data.dataset import Split
from diptych.data.features import FeatureTable, gather_features
from diptych.data.patches import PatchShare, cut_patches, draw_patches, patch_grid
from diptych.data.samples import SampleReader, sample_keys
from diptych.data.views import Views


class BatchMaker:
    """Makes the batch of any stretch of samples; what a worker process holds.

    `views` and `captions` are None where images or texts are not read. `features` are tables of vectors by their name
    in `Batch.cached`; what "image" and "text" stand for is left out. Besides, as the loader sets them:

    max_images   how many of a record's images are taken, the first ones
    one_image    each record must have an image, and gives its first alone: pairs, whatever the records hold
    alone        with `one_image`: a record may lack its image, or its text (`Captions.alone`)
    blind        every image is of the format's mean colour alone, once it has been read
    patches      those that the model would drop are left out
    begins_word  says which tokens begin a word, for objectives that hide words whole
    """

    def __init__(
        self,
        split: Split,
        seed: int,
        views: Views | None,
        captions: Captions | None,
        features: Mapping[str, FeatureTable] | None = None,
    ) -> None:
        self.reader = SampleReader(split.name, len(split), seed)
        self.features = dict(features or {})
        self.captions = captions
        self._split, self._views = split, views
        self.max_images, self.one_image, self.alone, self.blind = 5, False, False, False
        self.patches: PatchShare | None = None
        self.begins_word: Callable[[Tensor], Tensor] | None = None

    def batch(self, low: int, high: int, image_format: ImageFormat | None) -> Batch:
        """The records of samples `low` to `high`. `meta["records"]` holds each one's place in the split.

        Raises DataError if too many records cannot be read, ShardError if a tar cannot.
        """
        keys = sample_keys(low, high, self.reader.seed)
        album, captions = None, self.captions
        if self._views is not None and image_format is not None:
            album = Album(self._views, keys, image_format, 1 if self.one_image else self.max_images)

        def read(row: int, record: int) -> None:
            count = self._split.images_of(record) if captions is None else captions.check(record)
            if album is not None:
                if count == 0 and self.one_image and not self.alone:
                    raise _no_image(self._split.key(record))
                album.add(row, record, count)

        records = self.reader.read(low, high, read)
        which = np.zeros(len(records), np.int64) if captions is None else captions.choose(records, keys)
        batch = Batch(
            sample_ids=torch.arange(low, high),
            sample_keys=torch.tensor(keys, dtype=torch.int64),
            cached=gather_features(self.features, records, which, keys) if self.features else None,
            meta={"records": records.tolist()},
        )
        texts = None
        if "text" in self.features:
            notes = self.features["text"].notes(records.tolist(), which.tolist())
            batch = replace(batch, text_ids=notes[:, 0].contiguous(), truncated=int(notes[:, 1].sum()))
        elif captions is not None:
            texts = captions.texts(records, which)
            batch = _with_texts(batch, texts)
            if self.begins_word is not None:
                batch = replace(batch, word_starts=self.begins_word(texts.tokens))
        if album is not None:
            assert image_format is not None
            return self._with_images(batch, album, records, texts, image_format)
        return self._beside_images(batch, records, texts) if "image" in self.features else batch

    def _with_images(
        self, batch: Batch, album: Album, records: Int64[ndarray, " b"], texts: Texts | None, image_format: ImageFormat
    ) -> Batch:
        kept = album.counts
        if texts is not None and texts.places is not None:  # an image whose place was cut away goes with it
            kept = np.minimum(kept, [len(p) for p in texts.places])
        images, record, number, keys, further_ids = album.finished(kept)
        ids = np.where(number == 0, self._split.image_ids(records)[record], further_ids)
        batch = replace(
            batch,
            image_ids=torch.from_numpy(ids),
            image_record=torch.from_numpy(record),
            image_position=_positions(kept, None if texts is None else texts.places),
        )
        if self.blind:
            grey = torch.tensor([round(255 * mean) for mean in image_format.mean], dtype=torch.uint8)
            images = grey[None, :, None, None].expand_as(images).contiguous()
        if self.patches is None:
            return replace(batch, images=images)
        size, dropped = self.patches
        grid = patch_grid(image_format.resolution, image_format.resolution, size)
        index = draw_patches(keys, grid[0] * grid[1], dropped)
        return replace(batch, patches=cut_patches(images, size, index), patch_index=index, patch_grid=grid)

    def _beside_images(self, batch: Batch, records: Int64[ndarray, " b"], texts: Texts | None) -> Batch:
        """Where vectors stand for images, one a record: one whose place was cut away stands after its text, where it
        changes nothing."""
        batch = replace(batch, image_ids=torch.from_numpy(self._split.image_ids(records)))
        if texts is None or texts.places is None:
            return batch
        ends = texts.lengths.tolist()
        places = [p[0] if p else end for p, end in zip(texts.places, ends, strict=True)]
        return replace(batch, image_record=torch.arange(len(places)), image_position=torch.tensor(places))


def _no_image(key: str) -> DataError:
    return DataError(
        f"a pair must have an image; record {key} has none. Pack it with one, leave it out, or train what writes: "
        "language models and captioners take texts alone."
    )


def _with_texts(batch: Batch, texts: Texts) -> Batch:
    return replace(
        batch,
        tokens=texts.tokens,
        lengths=texts.lengths,
        loss_mask=texts.loss_mask,
        text_ids=texts.ids,
        truncated=texts.truncated,
    )


def _positions(kept: Int64[ndarray, " b"], places: list[tuple[int, ...]] | None) -> torch.Tensor | None:
    """Where the images stand that were kept; None where each record has one, before its text."""
    if places is None:
        return None if (kept == 1).all() else torch.zeros(int(kept.sum()), dtype=torch.int64)
    found = [p for row, count in zip(places, kept.tolist(), strict=True) for p in row[:count]]
    if (kept == 1).all() and not any(found):
        return None
    return torch.tensor(found, dtype=torch.int64)
