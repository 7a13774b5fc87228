from dataclasses import replace

import pytest
import torch

from diptych.core.errors import DataError
from diptych.objectives.sides import Rows, share_of_mean, sides_of, spread
from tests.models.writers import text_batch
from tests.objectives.tiny_model import TinyConfig

MODEL = TinyConfig().build(30)
CPU = torch.device("cpu")


def test_rows_are_two_at_least():
    some = Rows.of(torch.tensor([False, True, True, False, True]), CPU)
    assert some.at.tolist() == some.host.tolist() == [1, 2, 4]
    assert some.counts.tolist() == [1, 1, 1]
    one, none = Rows.of(torch.tensor([False, True, False]), CPU), Rows.of(torch.zeros(3, dtype=torch.bool), CPU)
    assert (one.at.tolist(), one.counts.tolist()) == ([1, 0], [1, 0])
    assert (none.at.tolist(), none.counts.tolist()) == ([0, 1], [0, 0])
    assert Rows.of(torch.zeros(1, dtype=torch.bool), CPU).at.tolist() == [0]


def test_pairs_are_as_they_are():
    batch = text_batch((5, 2))
    sides = sides_of(batch, MODEL)
    assert sides.images is batch.images
    assert sides.has_image.all()
    assert sides.has_text.all()
    assert sides.ids(batch, CPU)["image_id"].tolist() == [0, 1]


def test_each_side_stands_in_its_row():
    batch = text_batch((5, 0, 3))
    some = replace(
        batch,
        images=batch.images[1:],
        image_ids=torch.tensor([7, 8]),
        image_record=torch.tensor([1, 2]),
        image_position=torch.zeros(2, dtype=torch.int64),
    )
    sides = sides_of(some, MODEL)
    assert sides.has_image.tolist() == [False, True, True]
    assert sides.has_text.tolist() == [True, False, True]
    assert torch.equal(sides.images[1:], batch.images[1:])
    assert (sides.images[0] == 0).all()
    assert sides.ids(some, CPU)["image_id"].tolist() == [0, 7, 8]
    tokens, lengths = sides.texts(Rows.of(torch.tensor([True, True, False]), CPU))
    assert lengths.tolist() == [5, 1]
    assert torch.equal(tokens, batch.tokens[:2])


def test_one_side_may_be_absent():
    batch = text_batch((5, 3))
    images = sides_of(replace(batch, tokens=None, lengths=None), MODEL)
    assert images.has_image.all()
    assert not images.has_text.any()
    texts = sides_of(replace(batch, images=None), MODEL)
    assert texts.images.shape == (2, 3, 8, 8)
    assert not texts.has_image.any()


def test_neither_and_several_are_refused():
    batch = text_batch((5, 3))
    with pytest.raises(DataError, match="must hold images, texts or both; got neither"):
        sides_of(replace(batch, images=None, tokens=None), MODEL)
    twice = replace(batch, image_record=torch.tensor([0, 0]), image_position=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match="one image a record at most; got 2 images for 2 records"):
        sides_of(twice, MODEL)


def test_sums_become_parts_of_a_mean():
    assert share_of_mean(torch.tensor([2.0, 3.0])) == pytest.approx(0.2)
    assert share_of_mean(torch.zeros(2)) == 1
    assert spread(torch.tensor([[1.0], [2.0]]), torch.tensor([2, 0]), 3).tolist() == [[2], [0], [1]]
