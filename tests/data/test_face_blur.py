"""Blurred faces beside a plain twin; nothing else changes."""

import numpy as np
import pytest
import torch

from diptych.data.face_blur import FaceBlurConfig, blur_faces, faces_of
from diptych.data.face_boxes import FaceBox
from tests.data.pictures import pixels
from tests.reference import face_blur as plain


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)


BOXES = {
    "inside": [(0.3, 0.2, 0.6, 0.7)],
    "at the left and upper edge": [(0.0, 0.0, 0.2, 0.3)],
    "all of it": [(0.0, 0.0, 1.0, 1.0)],
    "a small one beside and one within a large one": [(0.1, 0.1, 0.7, 0.9), (0.8, 0.1, 0.9, 0.2), (0.3, 0.3, 0.5, 0.5)],
    "smaller than a pixel": [(0.5, 0.5, 0.501, 0.501)],
}


@pytest.mark.parametrize("name", BOXES)
def test_values_are_those_of_the_plain_twin(name) -> None:
    """Exactly: halves are rounded up in both, and the transform is good to 1e-12."""
    picture = pixels(3, height=30, width=40)
    boxes = tuple(FaceBox(*b) for b in BOXES[name])
    found = blur_faces(tensor(picture), boxes, 0.1, 0.1)
    assert (found.permute(1, 2, 0).numpy() == plain.blur_faces(picture, BOXES[name], 0.1, 0.1)).all()


def test_only_the_grown_boxes_change_and_the_picture_given_stays() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    given = tensor(picture)
    found = blur_faces(given, (FaceBox(0.25, 0.25, 0.5, 0.5),), margin=0.1, strength=0.2)
    changed = (found != given).any(0).numpy()
    assert not changed[:13].any()
    assert not changed[32:].any()
    assert not changed[:, :18].any()
    assert not changed[:, 42:].any()
    assert changed[13:32, 18:42].mean() > 0.99
    assert (given.permute(1, 2, 0).numpy() == picture).all()
    assert found.stride() == given.stride()  # channels last in memory, as decoders give them
    assert blur_faces(given, ()).equal(given)


def test_a_flat_picture_stays_as_it_is() -> None:
    flat = torch.full((3, 20, 1), 201, dtype=torch.uint8)
    assert blur_faces(flat, (FaceBox(0, 0, 1, 1),)).equal(flat)


def test_a_small_face_beside_a_large_one_is_blurred_by_its_own_size() -> None:
    """The rule of ImageNet's and DataComp's blur leaves four fifths of it."""
    picture = np.zeros((100, 100, 3), dtype=np.uint8)
    picture[80:90:2, 80:90] = 255
    found = blur_faces(tensor(picture), (FaceBox(0, 0, 0.6, 0.6), FaceBox(0.8, 0.8, 0.9, 0.9)), strength=0.1)
    small = found[0, 81:89, 80:90].float()
    assert small.diff(dim=0).abs().max() < 0.1 * 255


def test_whose_faces_are_blurred(monkeypatch) -> None:
    asked = []

    def find(image, model, least_score, side):
        asked.append((tuple(image.shape), model, least_score, side))
        return (FaceBox(0.5, 0.5, 1, 1),)

    monkeypatch.setattr("diptych.data.face_blur.find_faces", find)
    picture, meta = tensor(pixels(1)), {"face_bboxes": [[0, 0, 0.5, 0.5]]}
    assert faces_of(picture, meta, FaceBlurConfig(blur="boxes")) == (FaceBox(0, 0, 0.5, 0.5),)
    assert faces_of(picture, {}, FaceBlurConfig(blur="boxes")) is None
    assert not asked
    detect = FaceBlurConfig(blur="detect", model="m.onnx", least_score=0.4, side=320)
    assert faces_of(picture, meta, detect) == (FaceBox(0, 0, 0.5, 0.5), FaceBox(0.5, 0.5, 1, 1))
    assert faces_of(picture, {}, detect) == (FaceBox(0.5, 0.5, 1, 1),)
    assert asked[0] == ((3, 24, 32), "m.onnx", 0.4, 320)
