import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import DataError


def _batch() -> Batch:
    return Batch(
        images=torch.zeros(4, 3, 2, 2, dtype=torch.uint8),
        image_record=torch.arange(4),
        tokens=torch.arange(8).view(4, 2),
        lengths=torch.tensor([1, 2, 1, 2]),
        sample_ids=torch.arange(4),
    )


def test_slices_are_batches_of_their_own():
    part = _batch().slice(1, 3)
    assert part.size == 2
    assert part.tokens.tolist() == [[2, 3], [4, 5]]
    assert part.image_record.tolist() == [0, 1]


def test_slicing_takes_the_images_that_belong_to_the_records():
    batch = Batch(
        images=torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 2, 2),
        image_record=torch.tensor([0, 0, 2, 2]),
        image_position=torch.tensor([0, 3, 1, 2]),
        image_ids=torch.arange(4),
        tokens=torch.zeros(3, 5, dtype=torch.int64),
        sample_ids=torch.arange(3),
    )
    part = batch.slice(1, 3)
    assert part.images[:, 0, 0, 0].tolist() == [2, 3]
    assert part.image_record.tolist() == [1, 1]
    assert part.image_position.tolist() == [1, 2]
    assert part.image_ids.tolist() == [2, 3]
    assert len(part.tokens) == 2


def test_several_images_a_record_without_places_are_refused():
    batch = Batch(
        images=torch.zeros(4, 3, 2, 2, dtype=torch.uint8),
        image_record=torch.tensor([0, 0, 1, 1]),
        sample_ids=torch.arange(2),
    )
    with pytest.raises(DataError, match="must be one a record"):
        batch.slice(0, 1)


def test_to_moves_every_tensor():
    assert _batch().to("meta").tokens.device.type == "meta"
    assert Batch().size == 0
