import torch

from diptych.core.image_format import ImageFormat
from diptych.data.dataset import Dataset
from diptych.train.synthetic_batch import batches_like, caption_lengths


def test_lengths_are_those_of_the_captions(data):
    dataset = Dataset.open(data)
    lengths = caption_lengths(dataset.split("train"), dataset.tokenizer())
    assert len(lengths) == 40
    assert lengths.tolist() == sorted(lengths.tolist())
    assert 2 < lengths[0] <= lengths[-1] <= 8


def test_batches_hold_the_longer_half_of_the_captions_with_the_longest():
    make = batches_like(ImageFormat(resolution=8), torch.arange(1, 11), torch.device("cpu"))
    batch = make(6)
    assert batch.images.shape == (6, 3, 8, 8)
    assert batch.tokens.shape == (6, 10)
    assert batch.lengths.max() == 10
    assert batch.lengths.min() >= 5
    assert make(1).lengths.tolist() == [10]
    assert batch.slice(0, 2).size == 2


def test_vectors_stand_for_a_frozen_tower():
    batch = batches_like(ImageFormat(resolution=8), torch.tensor([5]), torch.device("cpu"), {"image": 4})(3)
    assert batch.images is None
    assert batch.cached["image"].shape == (3, 4)
    assert batch.tokens.shape == (3, 5)
