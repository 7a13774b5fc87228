"""Samples to one Batch: pixels varied and brought to one size, captions as ids, hashes that tell duplicates."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from diptych.core.batch import Batch
from diptych.core.image_format import ImageFormat
from diptych.data.captions import Captions
from diptych.data.dataset import Split
from diptych.data.features import FeatureTable, gather_features
from diptych.data.patches import PatchShare, cut_patches, draw_patches, patch_grid
from diptych.data.samples import SampleReader, sample_keys
from diptych.data.views import ViewBatch, Views


class BatchMaker:
    """Makes the batch of any stretch of samples; what a worker process holds.

    `features` are tables of vectors by their name in `Batch.cached`; what "image" and "text" stand for is left out.
    With `patches` set, those that the model would drop are left out.
    """

    def __init__(
        self,
        split: Split,
        seed: int,
        views: Views,
        captions: Captions,
        features: Mapping[str, FeatureTable] | None = None,
    ) -> None:
        self.reader = SampleReader(split.name, len(split), seed)
        self.features = dict(features or {})
        self.captions = captions
        self._split, self._views = split, views
        self.patches: PatchShare | None = None

    def batch(self, low: int, high: int, image_format: ImageFormat) -> Batch:
        """The pairs of samples `low` to `high`. `meta["records"]` holds each pair's place in the split.

        Raises DataError if too many records cannot be read, ShardError if a tar cannot.
        """
        keys = sample_keys(low, high, self.reader.seed)
        canvas = None if "image" in self.features else self._views.open(keys, image_format)

        def read(row: int, record: int) -> None:
            self.captions.check(record)
            if canvas is not None:
                canvas.add(row, record)

        records = self.reader.read(low, high, read)
        which = self.captions.choose(records, keys)
        batch = Batch(
            image_ids=torch.from_numpy(self._split.image_ids(records)),
            sample_ids=torch.arange(low, high),
            cached=gather_features(self.features, records, which, keys) if self.features else None,
            meta={"records": records.tolist()},
        )
        if canvas is not None:
            batch = self._with_images(batch, canvas, keys, image_format)
        if "text" in self.features:
            notes = self.features["text"].notes(records.tolist(), which.tolist())
            return replace(batch, text_ids=notes[:, 0].contiguous(), truncated=int(notes[:, 1].sum()))
        texts = self.captions.texts(records, which)
        return replace(batch, tokens=texts.tokens, lengths=texts.lengths, text_ids=texts.ids, truncated=texts.truncated)

    def _with_images(self, batch: Batch, canvas: ViewBatch, keys: list[int], image_format: ImageFormat) -> Batch:
        images, side = canvas.finished(), image_format.resolution
        batch = replace(batch, image_record=torch.from_numpy(np.arange(len(keys))))
        if self.patches is None:
            return replace(batch, images=images)
        size, dropped = self.patches
        grid = patch_grid(side, side, size)
        index = draw_patches(keys, grid[0] * grid[1], dropped)
        return replace(batch, patches=cut_patches(images, size, index), patch_index=index, patch_grid=grid)
