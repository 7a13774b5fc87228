from io import StringIO

from rich.console import Console

from diptych.report.compare_table import comparison_table, numbers, p_shown
from tests.report.comparisons import comparison, row


def _said(values) -> str:
    out = StringIO()
    comparison_table(values, Console(file=out, width=120))
    return out.getvalue()


def test_a_table_names_both_sides_and_each_verdict():
    said = _said(comparison())
    assert "a = new<> (3 runs)   b = old" in said
    assert "zero_shot on /data/<x> (val)" in said
    for text in ("* acc_at_1", "+2.1 [+0.8, +3.4]", "0.002", "unclear", "worse", "n = 1,837"):
        assert text in said
    assert "  zero_shot, acc_at_1: better by <2>" in said
    assert "  vqa: old was not evaluated on <it>" in said
    assert said.rstrip().endswith("Holm: <how>.")


def test_brackets_are_no_markup():
    assert "better by 2.1 points [0.8, 3.4]" in _said(
        comparison(rows=[row("acc", "better", family="headline", words="better by 2.1 points [0.8, 3.4]")])
    )


def test_numbers_of_shares_are_points():
    assert numbers(row("acc", "better"))[:4] == ("62.0%", "60.0%", "+2.1", "+0.8, +3.4")
    assert numbers(row("cider"))[:4] == ("0.62", "0.6", "+0.021", "-")
    assert (p_shown(0.0004), p_shown(0.0346)) == ("<0.001", "0.035")
