import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryGroupStatRates

from diptych.core.errors import EvalError
from diptych.evals import groups
from tests.evals import fakes
from tests.reference import group_bias


def _split(values, field="group"):
    split = fakes.pairs(len(values))
    split._meta = [{} if v is None else {field: v, "other": [1]} for v in values]
    return split


def test_groups_are_read_from_the_meta():
    split = _split(["b", "a", None, "b", True, "a", "b"])
    found = groups.read_groups(split, range(7), "", least=2)
    assert (found.field, found.names, found.without, found.left_out) == ("group", ("a", "b"), 1, {"True": 1})
    assert found.of.tolist() == [1, 0, -1, 1, -1, 0, 1]
    assert found.sizes.tolist() == [2, 3]
    right = np.array([True, True, True, False, True, False, True])
    assert groups.group_counts(found, right).tolist() == [1, 2]
    assert groups.read_groups(_split([3, 4, 3], "age"), range(3), "").names == ("3", "4")


def test_errors_say_what_there_is():
    with pytest.raises(EvalError, match=r"2 to 100 groups of at least 1 images; got 'none' with 0.*There are: colour"):
        groups.read_groups(_split(["x", "y"], "colour"), range(2), "")
    with pytest.raises(EvalError, match="got 'colour' with 1"):
        groups.read_groups(_split(["x", "x"], "colour"), range(2), "colour")
    with pytest.raises(EvalError, match="with 101"):
        groups.read_groups(_split(list(range(101))), range(101), "")
    with pytest.raises(EvalError, match=r"one value an image|text, a whole number"):
        groups.read_groups(_split([["x"], "y"]), range(2), "")


def test_shares_by_group_are_torchmetrics():
    rng = np.random.default_rng(0)
    of, truth, guessed = (rng.integers(0, n, 300) for n in (3, 2, 2))
    theirs = BinaryGroupStatRates(num_groups=3)(*map(torch.from_numpy, (guessed, truth, of)))
    found = groups.Groups("g", ("0", "1", "2"), of, {}, 0)
    shares = groups.group_counts(found, guessed == truth) / found.sizes
    for g in range(3):
        rates = theirs[f"group_{g}"]  # tp, fp, tn, fn
        assert shares[g] == pytest.approx(float(rates[0] + rates[2]), abs=1e-6)


def test_the_null_of_the_gap_is_that_of_the_plain_loop():
    rng = np.random.default_rng(1)
    of = np.repeat(np.arange(4), (10, 30, 50, 110))
    hits = rng.random(200) < 0.6
    counts, sizes = np.bincount(of[hits], minlength=4), np.bincount(of)
    found = groups.group_gap(counts, sizes, 0.1, 20_000, 0)
    slow = group_bias.permuted_gaps(hits, of, 3000, 2)
    assert found.gap.chance == pytest.approx(slow.mean(), abs=0.006)
    assert found.null_high == pytest.approx(np.quantile(slow, 0.95), abs=0.02)
    assert found.p_gap == pytest.approx((slow >= found.gap.value - 1e-9).mean(), abs=0.03)
    rates = counts / sizes
    assert (found.worst.value, found.worst_group) == (rates.min(), rates.argmin())
    assert found.gap.value == pytest.approx(np.ptp(rates))


def test_without_a_difference_none_is_found_and_the_intervals_hold():
    rng = np.random.default_rng(3)
    sizes = np.array([12, 25, 60, 100, 200])
    small, held_gap, held_worst = [], [], []
    for seed in range(300):
        found = groups.group_gap(rng.binomial(sizes, 0.3), sizes, 0.3, 300, seed)
        small.append(min(found.p_gap, found.p_any) < 0.025)
        held_gap.append(found.gap.low == 0)
        held_worst.append(found.worst.low <= 0.3 <= found.worst.high)
        assert found.gap.low <= found.gap.value <= found.gap.high
        assert found.worst.low <= found.worst.value <= found.worst.high
    assert np.mean(small) < 0.09
    assert np.mean(held_gap) > 0.94
    assert np.mean(held_worst) > 0.94


def test_a_planted_gap_is_found_and_lies_in_its_interval():
    rng, sizes = np.random.default_rng(4), np.array([80, 100, 120])
    held = []
    for seed in range(100):
        found = groups.group_gap(rng.binomial(sizes, (0.3, 0.7, 0.7)), sizes, 0.1, 300, seed)
        assert found.gap.low > 0
        assert found.p_gap < 0.01
        assert found.worst_group == 0
        held.append(found.gap.low <= 0.4 <= found.gap.high and found.worst.low <= 0.3 <= found.worst.high)
    assert np.mean(held) > 0.94


def test_the_difference_of_shares_is_newcombes():
    # his table II (a): 56/70 against 48/80 has 0.2 with 0.0524 to 0.3339 by method 10
    e = groups.share_difference(56, 70, 48, 80)
    assert (e.value, e.low, e.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert (e.n, e.chance) == (70, 0)


def test_each_groups_own_interval():
    found = groups.group_estimates(np.array([5, 50]), np.array([10, 100]), 0.2, 500, 0)
    assert [(e.value, e.n, e.chance) for e in found] == [(0.5, 10, 0.2), (0.5, 100, 0.2)]
    assert found[0].high - found[0].low > found[1].high - found[1].low
