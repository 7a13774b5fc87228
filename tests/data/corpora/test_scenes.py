import io
import itertools

import numpy as np
import pytest
from PIL import Image

from diptych.core.record import Record
from diptych.data.corpora.corpus import corpus
from diptych.data.corpora.scenes import Scenes, ScenesConfig
from diptych.data.drawing import BACKGROUNDS, COLOURS, draw


def _records(**config: object) -> list[Record]:
    return list(corpus("scenes", **config).records())  # type: ignore[arg-type]


def _pixels(record: Record) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record.segments[0].data)))


def test_a_scene_is_a_function_of_seed_and_number() -> None:
    few, many = _records(size=5), _records(size=9)
    assert few == many[:5]
    other = corpus("scenes", size=3, seed=1)
    assert isinstance(other, Scenes)
    assert other.record(2) == list(other.records())[2]
    assert [r.meta["code"] for r in other.records()] != [r.meta["code"] for r in few[:3]]
    large = _records(size=5, resolution=128)
    assert [r.meta["code"] for r in large] == [r.meta["code"] for r in few]
    assert _pixels(large[0]).shape == (128, 128, 3)


def test_it_streams_however_large() -> None:
    source = ScenesConfig(size=10**9).build()
    assert source.count() == 10**9
    assert [r.key for r in itertools.islice(source.records(), 2)] == ["000000000", "000000001"]


def test_the_code_draws_the_picture() -> None:
    for record in _records(size=20, resolution=48):
        assert np.array_equal(np.asarray(draw(record.meta["code"], 48)), _pixels(record))


def test_what_is_said_is_what_is_seen() -> None:
    for record in _records(size=60, resolution=96):
        pixels = _pixels(record).astype(int)
        seen = {c for c, rgb in COLOURS.items() if (pixels == rgb).all(-1).any()}
        assert seen == {o["colour"] for o in record.meta["objects"]}
        inside = np.zeros(pixels.shape[:2], bool)
        for thing in record.meta["objects"]:
            for left, top, right, bottom in thing["boxes"]:
                assert min(left, top) >= 0
                assert max(right, bottom) <= 96
                box = np.zeros_like(inside)
                # the raster may round outwards by a pixel
                box[max(0, int(top) - 1) : int(bottom) + 2, max(0, int(left) - 1) : int(right) + 2] = True
                assert (pixels[box] == COLOURS[thing["colour"]]).all(-1).any()
                inside |= box
        assert (pixels[~inside] == BACKGROUNDS[record.meta["background"]]).all()  # nothing that no box holds
        for i, relation, j in record.meta["relations"]:
            (ax, ay), (bx, by) = (
                ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (record.meta["objects"][k]["boxes"][0] for k in (i, j))
            )
            true = {"above": ay < by, "below": ay > by, "to the left of": ax < bx, "to the right of": ax > bx}
            assert true[relation]
        assert not set(record.meta["foils"].values()) & set(record.segments[1].texts)


def test_objects_of_a_scene_never_touch() -> None:
    for record in _records(size=80, resolution=16):
        boxes = [b for o in record.meta["objects"] for b in o["boxes"]]
        for a, b in itertools.combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_splits_and_variety() -> None:
    records = _records(size=250, resolution=16, val=0.1, test=0.2)
    shares = {s: sum(r.meta["split"] == s for r in records) / 250 for s in ("train", "val", "test")}
    assert shares["val"] == pytest.approx(0.1, abs=0.06)
    assert shares["test"] == pytest.approx(0.2, abs=0.08)
    assert len({r.segments[1].texts[0] for r in records}) > 170
    counts = {len(o["boxes"]) for r in records for o in r.meta["objects"]}
    assert counts == {1, 2, 3, 4}
    assert max(len(o["boxes"]) for r in _records(size=50, resolution=16, max_count=1) for o in r.meta["objects"]) == 1
