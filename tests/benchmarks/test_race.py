"""Seconds from a run's log, and what two curves of recall say."""

import numpy as np
import pytest
from benchmarks.ours.race import seconds_until
from benchmarks.recall import Judged, at_time, difference, reached


def curve(*points: tuple[float, float]) -> list[Judged]:
    return [Judged(0, seconds, np.arange(100) < 100 * recall, np.arange(100)) for seconds, recall in points]


def test_seconds_are_summed_over_the_intervals_and_cut_inside_one():
    lines = [{"samples_seen": 100, "samples_per_s": 50.0}, {"samples_seen": 300, "samples_per_s": 100.0}]
    assert seconds_until(lines, 100) == pytest.approx(2.0)
    assert seconds_until(lines, 200) == pytest.approx(3.0)
    assert seconds_until(lines, 300) == pytest.approx(4.0)


def test_a_recall_is_reached_at_the_first_evaluation_that_shows_it():
    ours = curve((1.0, 0.1), (2.0, 0.3), (3.0, 0.25))
    assert reached(ours, 0.3) == 2.0
    assert reached(ours, 0.31) is None
    assert at_time(ours, 2.5).recall == pytest.approx(0.3)
    assert at_time(ours, 0.5) is None


def test_the_difference_is_paired():
    said = difference(curve((1.0, 0.5))[0], curve((1.0, 0.4))[0])
    assert said.startswith("+10.0 points [+")
