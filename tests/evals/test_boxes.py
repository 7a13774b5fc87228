import numpy as np
import pytest

from diptych.core.errors import EvalError
from diptych.core.image_format import ImageFormat
from diptych.data.corpora.scenes import ScenesConfig
from diptych.data.frame import Frame
from diptych.evals.boxes import inside, phrases_of, pointing

SQUARE = Frame.of(16, 16, ImageFormat(resolution=16, resize="squash"))


def _heat(*places, side=16):
    heat = np.zeros((side, side), np.float32)
    for y, x in places:
        heat[y, x] = 1
    return heat


def _boxes(*boxes):
    return np.array(boxes, float)


def test_scenes_are_worded_as_their_captions():
    found = 0
    for i in range(30):
        record = ScenesConfig().build().record(i)
        phrases = phrases_of(record.meta, "a record")
        assert [len(p.boxes) for p in phrases] == [len(o["boxes"]) for o in record.meta["objects"]]
        captions = " / ".join(record.segments[1].texts)
        found += all(p.text in captions for p in phrases)
    assert found == 30


def test_boxes_of_one_name_are_one_phrase():
    meta = {"boxes": [{"name": "a cat", "box": [1, 2, 3, 4]}, {"name": "a dog", "box": [0, 0, 9, 9]}]}
    meta["boxes"].append({"name": "a cat", "box": [5, 5, 7, 8]})
    cat, dog = phrases_of(meta, "u")
    assert (cat.text, cat.boxes.tolist(), dog.kind) == ("a cat", [[1, 2, 3, 4], [5, 5, 7, 8]], "a dog")
    assert phrases_of({}, "u") == phrases_of({"boxes": []}, "u") == []
    for wrong in ([[1, 2, 3]], [[3, 0, 1, 4]], [[0, 0, 1, float("nan")]], 7):
        with pytest.raises(EvalError, match=r"boxes must be a list .* got a record \(u\)"):
            phrases_of({"boxes": [{"name": "x", "box": b} for b in wrong] if wrong != 7 else wrong}, "u")


def test_a_rim_is_inside_and_so_is_what_is_near():
    points = _boxes([4, 4], [8, 6], [8.5, 5], [10, 5])[:, :2]
    box = _boxes([4, 4, 8, 6])
    assert inside(points, box).tolist() == [True, True, False, False]
    assert inside(points, box, 0.5).tolist() == [True, True, True, False]
    assert inside(points, _boxes([4, 4, 8, 6], [9, 4, 11, 6])).tolist() == [True, True, False, True]


def test_pointing_by_hand():
    box = _boxes([4, 4, 8, 8])
    hit = pointing(_heat((5, 6)), SQUARE, box)
    assert (hit.hit, hit.energy, hit.area, hit.centre) == (1, 1, 1 / 16, 1)
    assert hit.iou == 1 / 16  # one of its pixels
    miss = pointing(_heat((5, 9)), SQUARE, box)
    assert (miss.hit, miss.energy, miss.iou) == (0, 0, 0)
    assert pointing(_heat((5, 9)), SQUARE, box, tolerance=2.0).hit == 1
    assert pointing(_heat((5, 6), (5, 12), (5, 13), (0, 0)), SQUARE, box).hit == 0.25  # ties are drawn for
    whole = np.zeros((16, 16), np.float32)
    whole[4:8, 4:8], whole[0, 0] = 0.6, 1
    found = pointing(whole, SQUARE, box)
    assert (found.hit, found.iou) == (0, 16 / 17)
    assert found.energy == pytest.approx(9.6 / 10.6)
    assert pointing(whole, SQUARE, box, threshold=0.7).iou == 0


def test_a_map_without_information_has_the_area():
    box = _boxes([2, 2, 10, 6])
    flat = pointing(_heat(), SQUARE, box)
    assert flat.hit == flat.energy == flat.iou == flat.area == 32 / 256
    assert flat.centre == 0
    rng = np.random.default_rng(0)
    hits = [pointing(rng.random((16, 16)), SQUARE, box).hit for _ in range(2000)]
    assert np.mean(hits) == pytest.approx(32 / 256, abs=0.02)


def test_padding_is_not_looked_at():
    wide = Frame.of(64, 32, ImageFormat(resolution=16, resize="pad"))
    heat = _heat((0, 0), (6, 3))  # the first lies on padding
    found = pointing(heat, wide, _boxes([8, 4, 20, 16]))
    assert (found.hit, found.energy) == (1, 1)
    assert found.area == 9 / 128


def test_a_cut_off_box_cannot_be_hit():
    wide = Frame.of(64, 32, ImageFormat(resolution=16, resize="crop"))
    assert pointing(np.ones((16, 16), np.float32), wide, _boxes([0, 0, 10, 32])).area == 0
