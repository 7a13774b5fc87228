from diptych.report.compare_page import compare_page, difference_chart
from tests.report.comparisons import comparison, row


def test_a_page_shows_verdicts_differences_and_what_was_left_out():
    page = compare_page(comparison())
    for text in (
        "+2.1 points",
        "62.0% against 60.0%: better",
        "better by &lt;2&gt;",
        "0.002",
        "1,837",
        "no test: no mean",
    ):
        assert text in page
    assert "old was not evaluated on &lt;it&gt;" in page
    assert "Holm: &lt;how&gt;." in page
    assert "new&lt;&gt;" in page
    assert "<x>" not in page
    assert page.count("<figure") == 2  # shares in points, and another scale for the others
    assert 'class="card good"' in page


def test_differences_lie_on_both_sides_of_nothing():
    chart = difference_chart([row("acc", "better", difference=0.1, low=0.0, high=0.2), row("ece")], True)
    assert "+20 points" in chart
    assert "-20 points" in chart
    assert chart.count("<circle") == 1
    assert difference_chart([row("ece")], True) == ""


def test_without_a_test_there_is_no_glance():
    page = compare_page(comparison(rows=[row("ece")], not_compared=[]))
    assert "At a glance" not in page
    assert "Not compared" not in page
