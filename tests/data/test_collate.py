"""A batch tells its duplicates apart from its mere neighbours, and holds what was asked for."""

from pathlib import Path

import pytest
import torch

from diptych.core.image_format import ImageFormat
from diptych.core.record import Record
from diptych.data.augment import NO_AUGMENTATION, AugmentConfig
from diptych.data.captions import LiveCaptions
from diptych.data.collate import BatchMaker
from diptych.data.dataset import Split
from diptych.data.decode import encode_png
from diptych.data.patches import PatchShare, cut_patches
from diptych.data.shards import ShardWriter
from diptych.data.views import Views
from tests.data import tiny_split

FORMAT = ImageFormat(resolution=8)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    captions = ["picture number 1", "Picture  number 1", "picture number 2"]
    with ShardWriter(tmp_path) as writer:
        for i, caption in enumerate(captions):
            image = encode_png(tiny_split.picture(i % 2, 8, 8))
            writer.add(Record.pair(f"k{i}", image, "png", (caption,)), sizes=[(8, 8)])
    return Split("train", [next(tmp_path.glob("*.tar"))])


def maker(split: Split, patches: PatchShare | None = None, augmentation: AugmentConfig = NO_AUGMENTATION) -> BatchMaker:
    views = Views(split, None, augmentation, scaled=False)
    made = BatchMaker(split, 5, views, LiveCaptions(split, tiny_split.tokenizer(), "draw"))
    made.patches = patches
    return made


def test_fields_and_duplicates(split: Split) -> None:
    batch = maker(split).batch(3, 6, FORMAT)
    assert batch.meta is not None
    records = batch.meta["records"]
    assert sorted(records) == [0, 1, 2]
    order = torch.tensor([records.index(r) for r in range(3)])
    assert batch.images is not None
    assert torch.equal(batch.images[order[1]], tiny_split.picture(1, 8, 8))
    assert batch.image_ids is not None
    assert batch.image_ids.tolist() == [split.image_id(r) for r in records]
    first, second, third = batch.image_ids[order].tolist()
    assert first == third != second
    assert batch.text_ids is not None
    first, second, third = batch.text_ids[order].tolist()
    assert first == second != third, "what the tokenizer folds is one text"
    assert batch.sample_ids is not None
    assert batch.sample_ids.tolist() == [3, 4, 5]
    assert (batch.size, batch.truncated) == (3, 0)
    assert batch.image_record is not None
    assert batch.image_record.tolist() == [0, 1, 2]


def test_patches_stand_for_images(split: Split) -> None:
    augmentation = AugmentConfig(crop_scale=(0.5, 1.0), saturation=0.3)
    whole = maker(split, None, augmentation).batch(0, 3, FORMAT)
    part = maker(split, PatchShare(4, 0.5), augmentation).batch(0, 3, FORMAT)
    assert whole.images is not None
    assert part.images is None
    assert part.patches is not None
    assert part.patch_index is not None
    assert part.patches.shape == (3, 2, 48)
    assert part.patch_grid == (2, 2)
    assert torch.equal(part.patches, cut_patches(whole.images, 4, part.patch_index))
    again = maker(split, PatchShare(4, 0.5), augmentation).batch(2, 3, FORMAT)
    assert again.patches is not None
    assert torch.equal(again.patches[0], part.patches[2]), "whatever its company"
    piece = part.slice(1, 3)
    assert piece.patches is not None
    assert torch.equal(piece.patches, part.patches[1:])
    assert piece.patch_grid == (2, 2)
