import math

import pytest

from diptych.report.plots import Series, Whisker, heatmap, histogram, interval_chart, line_chart, short


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234, "1.23k"), (3e6, "3M"), (0.034, "0.034"), (1e-5, "1.0e-05"), (math.nan, "nan"), (2.5e9, "2.5G")],
)
def test_numbers_are_short(value, text):
    assert short(value) == text


def test_lines_leave_out_what_is_not_finite():
    svg = line_chart([Series("loss", [0, 1, 2], [1.0, math.nan, 3.0])], "loss", references=[("chance", 2.0)])
    assert svg.count('class="dot"') == 2
    assert "chance" in svg
    assert "nothing was logged" in line_chart([Series("x", [0], [math.inf])], "x")
    assert "nothing was logged" in line_chart([Series("x", [0], [-1.0])], "x", log_y=True)


def test_a_constant_and_a_single_point_can_be_drawn():
    assert "<svg" in line_chart([Series("lr", [5], [0.0])], "lr")
    assert "<svg" in line_chart([Series("lr", [5, 6], [2.0, 2.0])], "lr")


def test_long_series_are_thinned_but_keep_their_ends():
    svg = line_chart([Series("x", list(range(10_000)), [float(i) for i in range(10_000)])], "x", max_points=50)
    assert svg.count('class="dot"') <= 50
    assert "10k at 10k" in svg


def test_intervals_show_chance():
    svg = interval_chart([Whisker("acc", 0.5, 0.4, 0.6, 0.1, 100)])
    assert "50.0% [40.0%, 60.0%]" in svg
    assert "chance 10.000%" in svg
    assert "no estimates" in interval_chart([])


def test_matrices_and_counts_become_pictures():
    assert "data:image/png" in heatmap([[0.0, 1.0], [1.0, 0.0]])
    assert "empty" in heatmap([])
    assert histogram([1, 2], [3, 4], "rank").count("<rect") == 2
    assert "nothing to count" in histogram([], [], "rank")
