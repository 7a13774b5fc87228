"""What the detector is taught, and how peaks become a scene: with maps that are written by hand."""

import pytest
import torch

from diptych.data.drawing import BACKGROUNDS, COLOURS
from diptych.evals.scene_detector import CELLS, FIELDS, KINDS, SIDE, SceneDetector, detection_loss
from diptych.evals.scene_facts import judge
from tests.evals.scene_data import scenes


def _maps(detector, metas, sure=9.0):
    """What a perfect network would say of these scenes, whose pictures have 32 pixels a side."""
    maps = detector(torch.zeros(len(metas), 3, SIDE, SIDE))
    truth = detector.truth(metas, [32] * len(metas))
    centre = torch.full_like(maps.centre, -sure)
    place, said = torch.zeros_like(maps.place), {f: torch.zeros_like(m) for f, m in maps.said.items()}
    for o, scene in enumerate(truth.scene.tolist()):
        column, row = (truth.centre[o] * CELLS).long().tolist()
        centre[scene, row, column] = sure
        place[scene, :, row, column] = truth.centre[o] * CELLS - torch.tensor([column, row])
        for field in FIELDS:
            if truth.said[field][o] >= 0:
                said[field][scene, truth.said[field][o], row, column] = sure
    background = sure * torch.nn.functional.one_hot(truth.background, len(BACKGROUNDS)).float()
    return maps._replace(centre=centre, place=place, said=said, background=background), truth


@pytest.fixture(scope="module")
def some():
    split = scenes(60).split("val")
    metas = [split.meta(i) for i in range(60)]
    words = sorted({o["word"] for m in metas for o in m["objects"] if o["word"]})
    torch.manual_seed(0)
    return SceneDetector(words).eval(), metas, [split.captions(i) for i in range(60)]


def test_a_perfect_network_is_read_as_the_scene_that_was_drawn(some):
    detector, metas, captions = some
    maps, truth = _maps(detector, metas)
    for scene, meta, said in zip(detector._read(maps), metas, captions, strict=True):
        verdicts = [judge(caption, scene) for caption in said]
        assert verdicts[-1].all_right, "the fullest without a relation names all"
        assert all(v.true == v.claimed for v in verdicts)
        assert len(scene["relations"]) == len(meta["relations"])
    assert detection_loss(maps, truth) < 0.5


def test_the_loss_falls_where_the_maps_are_right(some):
    detector, metas, _ = some
    right, truth = _maps(detector, metas)
    blank = right._replace(centre=torch.full_like(right.centre, -9.0))
    wrong = right._replace(said={f: m.roll(1, 1) for f, m in right.said.items()})
    moved = right._replace(place=1 - right.place)
    losses = [float(detection_loss(m, truth)) for m in (right, moved, wrong, blank)]
    assert losses[0] < losses[1] < losses[2]
    assert losses[0] + 5 < losses[3]


def test_every_part_of_the_network_learns_from_it(some):
    detector, metas, _ = some
    loss = detection_loss(detector(torch.zeros(60, 3, 32, 32, dtype=torch.uint8)), detector.truth(metas, [32] * 60))
    gradients = torch.autograd.grad(loss, list(detector.parameters()))
    assert all(g.isfinite().all() for g in gradients)
    assert sum(bool(g.abs().sum() > 0) for g in gradients) == len(gradients)


def test_pictures_without_words_and_without_objects():
    detector = SceneDetector(())
    empty = {"objects": [], "relations": [], "background": "grey"}
    thing = {"shape": "star", "colour": "pink", "size": "large", "word": "", "boxes": [[0.0, 0.0, 8.0, 8.0]]}
    truth = detector.truth([empty, empty | {"objects": [thing]}], [32, 32])
    assert truth.scene.tolist() == [1]
    assert truth.said["word"].tolist() == [-1]
    assert (KINDS[truth.said["shape"][0]], list(COLOURS)[truth.said["colour"][0]]) == ("star", "pink")
    images = torch.zeros(2, 3, 20, 20, dtype=torch.uint8)
    assert detection_loss(detector(images), truth).isfinite()
    assert detection_loss(detector(images), detector.truth([empty, empty], [32, 32])).isfinite()
    assert len(detector.read(images)) == 2
