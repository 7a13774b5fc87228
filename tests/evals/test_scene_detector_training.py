import pytest
import torch

from diptych.core.errors import EvalError
from diptych.evals import scene_detector_training as training
from diptych.evals.scene_detector import SceneDetector
from diptych.evals.scene_detector_training import (
    DetectorConfig,
    detector_for,
    detector_key,
    read_right,
    read_scenes,
    spoiled,
    train_detector,
)
from tests.evals import fakes
from tests.evals.scene_data import KnowsAll, scenes

SHORT = DetectorConfig(max_train=40, samples=64, batch_size=16)


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setattr(training, "KEPT", {})


def test_it_is_learned_once_and_the_same_each_time(monkeypatch):
    data = scenes(60)
    before = torch.get_rng_state()
    first = detector_for(data, "train", 32, SHORT)
    assert torch.equal(torch.get_rng_state(), before), "an eval leaves torch's draws as they were"
    assert (first.scenes, first.accuracy.n) == (36, 4)
    again = train_detector(training._some(read_scenes(data.split("train"), 32, 40), _learned(40)), SHORT).state_dict()
    for name, value in first.detector.state_dict().items():
        torch.testing.assert_close(value, again[name])
    monkeypatch.setattr(training, "train_detector", None)
    assert detector_for(data, "train", 32, SHORT) is first
    training.KEPT.clear()
    kept = detector_for(data, "train", 32, SHORT)
    assert kept.accuracy == first.accuracy
    for name, value in first.detector.state_dict().items():
        torch.testing.assert_close(value, kept.detector.state_dict()[name])


def _learned(n):
    return [i for i in range(n) if training.permute(i, n, "held") >= n // 10]


def test_the_key_holds_what_it_rests_on():
    plain = ("a", "train", 32, SHORT)
    others = (
        ("b", *plain[1:]),
        ("a", "val", 32, SHORT),
        ("a", "train", 48, SHORT),
        (*plain[:3], SHORT.replace(seed=1)),
    )
    keys = {detector_key(*how) for how in (plain, *others)}
    assert len(keys) == 5


def test_a_few_steps_learn_something():
    read = read_scenes(scenes(60).split("val"), 32, 60)
    torch.manual_seed(0)
    losses = []
    for samples in (16, 320):
        detector = train_detector(read, DetectorConfig(samples=samples, batch_size=16))
        truth = detector.truth(read.metas, read.sides)
        with torch.no_grad():
            losses.append(float(training.detection_loss(detector(read.images), truth)))
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.slow
def test_it_reads_what_it_has_learned():
    data = scenes(200, 2000)
    detector = train_detector(read_scenes(data.split("train"), 32, 2000), DetectorConfig(samples=30_000))
    right = read_right(detector, read_scenes(data.split("val"), 32, 200))
    assert sum(right) > 0.5 * len(right)


def test_what_is_read_is_right_where_nothing_is_missing():
    data = scenes(60)
    read = read_scenes(data.split("val"), 32, 60)
    assert len(read.metas) == 60
    assert set(read.sides) == {32}
    assert all(read_right(KnowsAll(data), read))
    assert not any(read_right(SceneDetector(()).eval(), read))


def test_pictures_are_spoiled_within_bounds():
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    torch.manual_seed(0)
    found = spoiled(images)
    assert found.min() >= 0
    assert found.max() <= 255
    assert 2 < (found - images.float()).abs().mean() < 60


def test_few_scenes_are_refused():
    with pytest.raises(EvalError, match=r"a detector must learn from at least 20 scenes; got 0 in val.*corpus get"):
        read_scenes(fakes.pairs(30), 32, 100)
