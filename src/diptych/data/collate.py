"""Samples to one Batch: pixels varied and brought to one size, captions as ids, hashes that tell duplicates."""

from collections.abc import Sequence
from hashlib import blake2b

import torch

from diptych.core.batch import Batch
from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig, augment
from diptych.data.samples import Sample
from diptych.data.tokenize import Encoded, Tokenizer


def collate(
    samples: Sequence[Sample], tokenizer: Tokenizer, augmentation: AugmentConfig, image_format: ImageFormat
) -> Batch:
    """A batch of pairs. `meta["records"]` holds each pair's place in the split."""
    rows = tokenizer.encode_all([s.caption for s in samples])
    tokens, lengths = tokenizer.pad(rows)
    return Batch(
        images=augment([s.image for s in samples], [s.key for s in samples], augmentation, image_format),
        image_record=torch.arange(len(samples)),
        tokens=tokens,
        lengths=lengths,
        image_ids=torch.tensor([s.image_id for s in samples], dtype=torch.int64),
        text_ids=torch.tensor([text_id(r) for r in rows], dtype=torch.int64),
        sample_ids=torch.tensor([s.n for s in samples], dtype=torch.int64),
        truncated=sum(r.truncated for r in rows),
        meta={"records": [s.record for s in samples]},
    )


def text_id(row: Encoded) -> int:
    """A signed 64-bit hash of a caption as the model sees it: captions that differ only where they are cut, or in case
    that the tokenizer folds, are the same text to the model and so to its loss."""
    raw = b"".join(i.to_bytes(4, "little") for i in row.ids)
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little", signed=True)
