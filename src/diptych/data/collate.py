"""Samples to one Batch: pixels varied and brought to one size, captions as ids, hashes that tell duplicates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b

import torch

from diptych.core.batch import Batch
from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig, augment
from diptych.data.features import FeatureTable, gather_features
from diptych.data.samples import Sample
from diptych.data.tokenize import Encoded, Tokenizer


def collate(
    samples: Sequence[Sample],
    tokenizer: Tokenizer,
    augmentation: AugmentConfig,
    image_format: ImageFormat,
    features: Mapping[str, FeatureTable] | None = None,
) -> Batch:
    """A batch of pairs. `meta["records"]` holds each pair's place in the split.

    `features` are tables of vectors by their name in `Batch.cached`; what "image" and "text" stand for is left out.
    """
    features = features or {}
    batch = Batch(
        image_ids=torch.tensor([s.image_id for s in samples], dtype=torch.int64),
        sample_ids=torch.tensor([s.n for s in samples], dtype=torch.int64),
        cached=gather_features(features, samples) if features else None,
        meta={"records": [s.record for s in samples]},
    )
    if "image" not in features:
        stored = [s.image for s in samples if s.image is not None]
        images = augment(stored, [s.key for s in samples], augmentation, image_format)
        batch = replace(batch, images=images, image_record=torch.arange(len(samples)))
    if "text" in features:
        notes = features["text"].notes([s.record for s in samples], [s.caption_number for s in samples])
        return replace(batch, text_ids=notes[:, 0].contiguous(), truncated=int(notes[:, 1].sum()))
    rows = tokenizer.encode_all([s.caption for s in samples])
    tokens, lengths = tokenizer.pad(rows)
    return replace(
        batch,
        tokens=tokens,
        lengths=lengths,
        text_ids=torch.tensor([text_id(r) for r in rows], dtype=torch.int64),
        truncated=sum(r.truncated for r in rows),
    )


def text_id(row: Encoded) -> int:
    """A signed 64-bit hash of a caption as the model sees it: captions that differ only where they are cut, or in case
    that the tokenizer folds, are the same text to the model and so to its loss."""
    raw = b"".join(i.to_bytes(4, "little") for i in row.ids)
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little", signed=True)
