import pytest
import torch

from diptych.core.batch import Batch


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


def test_slicing_several_images_a_record_is_refused():
    batch = Batch(images=torch.zeros(4, 3, 2, 2, dtype=torch.uint8), sample_ids=torch.arange(2))
    with pytest.raises(NotImplementedError):
        batch.slice(0, 1)


def test_to_moves_every_tensor():
    assert _batch().to("meta").tokens.device.type == "meta"
    assert Batch().size == 0
