import numpy as np
import pytest
import torch

from diptych.evals import calibration_error as ce


def _drawn(n=4000, over=0.0, seed=0):
    """Confidences, and answers that are right with that probability, less `over`."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1, n)
    return confidence, rng.random(n) < confidence - over


def test_the_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    hits = np.array([True, True, True, False, False, False])
    e = ce.calibration_error(confidence, hits)
    assert e.value == pytest.approx((4 * abs(0.75 - 0.95) + 2 * 0.55) / 6)
    assert e.low <= e.value <= e.high
    assert not e.higher_is_better
    rng = np.random.default_rng(0)
    honest = rng.uniform(0.2, 1, 20_000)
    assert ce.calibration_error(honest, rng.random(20_000) < honest, 100).value < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_equal_widths_are_torchmetrics_to_the_last_digit(seed):
    """Theirs puts the edges of bins below (b/15 belongs to bin b+1), ours above; no drawn number lies on one.
    They add in float32, we in float64: the last digit is the seventh."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits = torch.randn(500, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    truth = torch.randint(9, (500,), generator=torch.Generator().manual_seed(seed + 100))
    theirs = multiclass_calibration_error(logits.softmax(1), truth, num_classes=9, n_bins=15, norm="l1")
    confidence, hits = logits.softmax(1).amax(1).numpy(), (logits.argmax(1) == truth).numpy()
    assert ce.plain_error(confidence, hits) == pytest.approx(float(theirs), abs=1e-6)


def test_equal_masses_hold_equally_many_and_part_no_equal_ones():
    confidence, hits = _drawn(150)
    assert np.bincount(ce.bin_of(confidence, ce.Bins("equal_mass"))).tolist() == [10] * 15
    assert len(set(ce.bin_of(np.full(7, 0.5), ce.Bins("equal_mass")).tolist())) == 1
    assert sum(b.n for b in ce.reliability_bins(confidence, hits, ce.Bins("equal_mass"))) == 150


def test_equal_images_are_one_item_and_widen_the_interval():
    confidence, hits = _drawn(300, 0.2)
    once = ce.calibration_error(confidence, hits)
    thrice = ce.calibration_error(np.tile(confidence, 3), np.tile(hits, 3), clusters=np.tile(np.arange(300), 3))
    assert (thrice.value, thrice.n) == (pytest.approx(once.value), 300)
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.1)


def test_a_planted_miscalibration_stands_out_of_the_noise_and_none_does_not():
    found = ce.noise_level(*_drawn(1000, 0.15))
    assert found.p_value < 0.01
    assert found.mean < found.most < ce.plain_error(*_drawn(1000, 0.15))
    false_alarms = sum(ce.noise_level(*_drawn(500, seed=s), samples=200).p_value < 0.05 for s in range(60))
    assert false_alarms <= 8  # of 60 at 5 %, eight or fewer in 99 %
