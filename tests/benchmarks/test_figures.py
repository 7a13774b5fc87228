"""The arithmetic of the tables: medians, ratios turn by turn, verdicts, and which variant counts."""

import pytest
from benchmarks.figures import Comparison, Ratio, Series, best_of, comparison_table, number


def test_a_ratio_is_taken_turn_by_turn():
    ours, theirs = Series("a", (4.0, 9.0, 10.0)), Series("b", (2.0, 3.0, 2.0))
    assert Ratio.of(ours, theirs) == Ratio(3.0, 2.0, 5.0)


def test_less_is_better_where_it_is_time_or_memory():
    ours, theirs = Series("a", (1.0, 2.0), "s", lower=True), Series("b", (3.0, 4.0), "s", lower=True)
    assert Ratio.of(ours, theirs).median == pytest.approx(2.5)
    assert ours.best == 1.0
    assert best_of((ours, theirs)) is ours


def test_sides_must_have_taken_equally_many_turns():
    with pytest.raises(ValueError, match="equally many turns"):
        Ratio.of(Series("a", (1.0,)), Series("b", (1.0, 2.0)))


@pytest.mark.parametrize(
    "value, verdict", [(1.0, "NOT REACHED"), (2.0, "reached"), (2.9, "reached"), (3.0, "as meant")]
)
def test_the_verdict_says_what_the_target_says(value, verdict):
    c = Comparison("x", (Series("a", (value,)),), (Series("b", (1.0,)),), target=2.0, meant=3.0)
    assert c.verdict == verdict
    assert verdict in comparison_table([c])


def test_the_best_variant_of_each_side_counts_and_is_marked():
    mine = (Series("ours eager", (2.0,)), Series("ours compiled", (4.0,)))
    theirs = (Series("peer eager", (2.0,)), Series("peer compiled", (1.0,)))
    c = Comparison("x", mine, theirs, target=1.0)
    assert c.ratio == Ratio(2.0, 2.0, 2.0)
    text = comparison_table([c])
    assert "ours compiled *" in text
    assert "peer eager *" in text
    assert "ours eager *" not in text


def test_a_side_that_is_absent_has_no_ratio():
    c = Comparison("x", (Series("a", (1.0,)),), (), target=2.0)
    assert c.ratio is None
    assert c.verdict == ""
    assert " - " in comparison_table([c])


@pytest.mark.parametrize(
    "value, text", [(12345.6, "12,346"), (99.94, "99.9"), (0.1234, "0.123"), (0.0, "0"), (1e-5, "1e-05")]
)
def test_numbers_have_three_digits_that_mean_something(value, text):
    assert number(value) == text
