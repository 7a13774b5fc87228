import re

from diptych.report.reliability import LEFT, SIDE, reliability_chart


def test_dots_stand_where_they_should_and_are_as_large_as_their_bins():
    html = reliability_chart(
        [{"n": 10, "confidence": 0.0, "accuracy": 0.0}, {"n": 1000, "confidence": 0.5, "accuracy": 0.25}]
    )
    circles = [tuple(map(float, c)) for c in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', html)]
    assert circles[0][:2] == (LEFT, SIDE - 40)
    inner = SIDE - 52
    assert circles[1][:2] == (LEFT + inner / 2, SIDE - 40 - inner / 4)
    assert circles[1][2] > 3 * circles[0][2]
    assert "25.0% right where it says 50.0% (1,000 images)" in html


def test_nothing_is_drawn_of_nothing():
    assert reliability_chart([]) == ""
    assert reliability_chart([{"n": 0, "confidence": 0.5, "accuracy": 0.5}]) == ""
