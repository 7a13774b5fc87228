"""A batch tells its duplicates apart from its mere neighbours."""

import torch

from diptych.core.image_format import ImageFormat
from diptych.data.augment import NO_AUGMENTATION
from diptych.data.collate import collate, text_id
from diptych.data.samples import Sample
from tests.data import tiny_split


def test_fields_and_duplicates() -> None:
    captions = ["picture number 1", "Picture  number 1", "picture number 2"]
    samples = [Sample(10 + i, i, i, tiny_split.picture(i, 8, 8), 100 + i % 2, c) for i, c in enumerate(captions)]
    tokenizer = tiny_split.tokenizer()
    batch = collate(samples, tokenizer, NO_AUGMENTATION, ImageFormat(resolution=8))
    assert batch.images is not None
    assert torch.equal(batch.images[2], tiny_split.picture(2, 8, 8))
    assert batch.image_ids is not None
    assert batch.image_ids.tolist() == [100, 101, 100]
    assert batch.text_ids is not None
    first, second, third = batch.text_ids.tolist()
    assert first == second != third, "what the tokenizer folds is one text"
    assert batch.sample_ids is not None
    assert batch.sample_ids.tolist() == [10, 11, 12]
    assert (batch.size, batch.truncated, batch.meta) == (3, 0, {"records": [0, 1, 2]})
    assert batch.image_record is not None
    assert batch.image_record.tolist() == [0, 1, 2]


def test_text_id_is_a_signed_hash_of_the_ids() -> None:
    tokenizer = tiny_split.tokenizer()
    ids = [text_id(tokenizer.encode(f"picture number {i}")) for i in range(40)]
    assert len(set(ids)) == 40
    assert min(ids) < 0 < max(ids) < 2**63
