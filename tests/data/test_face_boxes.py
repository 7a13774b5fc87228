"""Boxes of faces in a record's meta: read, cut, measured, or refused."""

import numpy as np
import pytest

from diptych.data.face_boxes import MAX_TEXT, BadBoxes, FaceBox, boxes_in, carried, covered_share


def test_boxes_are_cut_to_the_picture_and_sorted() -> None:
    given = [[0.8, 0.9, 1.1, 1.02], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], [-0.5, 0, -0.1, 0.2], (0.1, 0.1, 0.2, 0.1)]
    assert boxes_in({"face_bboxes": given}) == (FaceBox(0, 0, 0.5, 0.5), FaceBox(0.8, 0.9, 1, 1))
    assert boxes_in({"mine": "[[0, 0, 1, 0.5]]"}, "mine") == (FaceBox(0, 0, 1, 0.5),)
    assert boxes_in({"face_bboxes": []}) == ()
    for nothing in ({}, {"face_bboxes": None}, {"face_bboxes": ""}):
        assert boxes_in(nothing) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[[0, 0", "must be JSON of a list"),
        ({"left": 0}, "must be a list of at most 100 boxes; got a dict"),
        ([[0, 0, 1, 1]] * 101, "must be a list of at most 100 boxes; got 101"),
        ([[0, 0, 1]], "must be \\[left, top, right, bottom\\]"),
        ([[0, 0, 1, "1"]], "must be \\[left, top, right, bottom\\]"),
        ([[0, 0, True, 1]], "must be \\[left, top, right, bottom\\]"),
        ([[0.5, 0, 0.1, 1]], "must be \\[left, top, right, bottom\\]"),
        ([[10, 20, 110, 90]], "Divide pixels by the width and the height"),
        ([[0, 0, 1, 1 - i / 100] for i in range(10)], "must cover a picture at most 8 times"),
        ([[0, 0, float("nan"), 1]], "must be in shares"),
        (f"[[0, 0, 1, 1{'0' * 400}]]", "must be in shares"),
    ],
)
def test_what_cannot_be_meant_is_refused(value, words) -> None:
    with pytest.raises(BadBoxes, match=words):
        boxes_in({"face_bboxes": value})


def test_what_overlaps_is_covered_once() -> None:
    assert covered_share(()) == 0
    assert covered_share((FaceBox(0, 0, 1, 1), FaceBox(0.2, 0.2, 0.4, 0.4))) == 1
    generator = np.random.default_rng(0)
    boxes = [FaceBox(x, y, min(x + w, 1), min(y + h, 1)) for x, y, w, h in generator.random((6, 4)).round(2)]
    grid = np.zeros((100, 100), dtype=bool)
    for box in boxes:
        left, top, right, bottom = (round(v * 100) for v in box)
        grid[top:bottom, left:right] = True
    assert covered_share(tuple(boxes)) == pytest.approx(grid.mean())


def test_what_a_cell_holds_of_boxes_goes_along_and_what_is_too_much_is_refused_not_lost() -> None:
    for value in ([], [[0, 0, 0.5, 1]], "[[0, 0, 0.5, 1]]", " [[0, 0, 0.5, 1]]"):
        assert carried(value) == value
    for value in (None, 3, "a caption", [1, 2], [[1, 2]], {"a": 1}, "[1, 2]", [["a"] * 512]):
        assert carried(value) is None
    odd = [[0, 0, float("nan"), True], [0, 0, 1, 10**400], "x", [0] * 99]
    assert carried(odd) == [[0, 0, None, None], [0, 0, 1, None], None, [0] * 5]
    long = "[" + ", ".join(["[0, 0, 0.5, 1]"] * MAX_TEXT) + "]"
    for value in (odd, [[0, 0, 0.01, 0.01]] * 102, long):
        with pytest.raises(BadBoxes):
            boxes_in({"face_bboxes": carried(value)})
