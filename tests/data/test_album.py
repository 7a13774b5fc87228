"""Images of records that hold several: each as a pair's image would be, by a key of its own."""

import numpy as np
import pytest
import torch

from diptych.core.errors import DataError
from diptych.core.image_format import ImageFormat
from diptych.core.seeds import fold
from diptych.data.album import Album, content_id
from diptych.data.augment import AugmentConfig
from diptych.data.dataset import Split
from diptych.data.decode import decode_image
from diptych.data.pixels import Pixels
from diptych.data.samples import sample_keys
from diptych.data.views import Views
from tests.data import tiny_pages

FORMAT = ImageFormat(resolution=8)
AUGMENT = AugmentConfig(crop_scale=(0.3, 1.0), saturation=0.4)
KEYS = sample_keys(0, 4, 1)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return tiny_pages.opened(tmp_path_factory.mktemp("pages"))


def views(split: Split, cached: bool = False, augment: AugmentConfig = AUGMENT) -> Views:
    return Views(split, Pixels(split, decode_image, 1) if cached else None, augment, scaled=False)


def one(split: Split, key: int, record: int, number: int) -> torch.Tensor:
    """The image by itself."""
    batch = views(split).open([key], FORMAT)
    batch.add(0, record, number)
    return batch.finished()[0]


@pytest.mark.parametrize("cached", [False, True])
def test_each_image_is_as_if_alone(split: Split, cached: bool) -> None:
    album = Album(views(split, cached), KEYS, FORMAT, most=2)
    for row, (record, count) in enumerate([(4, 3), (0, 1), (6, 0), (5, 9)]):
        album.add(row, record, count)
    assert album.counts.tolist() == [2, 1, 0, 2]
    found = album.finished(album.counts)
    assert found.record.tolist() == [0, 0, 1, 3, 3]
    assert found.number.tolist() == [0, 1, 0, 0, 1]
    assert found.keys == [KEYS[0], fold(KEYS[0], "image", 1), KEYS[1], KEYS[3], fold(KEYS[3], "image", 1)]
    records = [4, 4, 0, 5, 5]
    for image, key, record, number in zip(found.images, found.keys, records, found.number.tolist(), strict=True):
        assert torch.equal(image, one(split, key, record, number))
    assert found.further_ids[1] == content_id(split.image_bytes(4, 1))


def test_images_that_were_cut_away_are_left_out(split: Split) -> None:
    found = []
    for kept in ([3, 5], [1, 3]):
        album = Album(views(split), KEYS[:2], FORMAT, most=5)
        album.add(0, 4, 3)
        album.add(1, 5, 9)
        found.append(album.finished(np.array(kept)))
    whole, less = found
    assert less.record.tolist() == [0, 1, 1, 1]
    assert torch.equal(less.images, whole.images[[0, 3, 4, 5]])
    assert less.further_ids.tolist() == whole.further_ids[[0, 3, 4, 5]].tolist()


def test_a_row_may_be_filled_anew(split: Split) -> None:
    album = Album(views(split), KEYS[:1], FORMAT, most=5)
    album.add(0, 4, 3)
    with pytest.raises(DataError, match="must hold an image of number 3"):
        album.add(0, 4, 4)
    album.add(0, 0, 1)
    found = album.finished(album.counts)
    assert found.record.tolist() == [0]
    assert torch.equal(found.images[0], one(split, KEYS[0], 0, 0))


def test_ids_are_those_of_the_index(split: Split) -> None:
    assert content_id(split.image_bytes(4)) == split.image_id(4)
