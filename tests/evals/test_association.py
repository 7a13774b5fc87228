import numpy as np
import pytest
from scipy.stats import permutation_test

from diptych.core.errors import EvalError
from diptych.evals import association
from diptych.evals.association import association_test
from tests.reference import group_bias


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _sets(seed, shift, sizes=(8, 8, 6, 6), width=16):
    """Targets x and attributes a lean the same way by `shift`, y and b the other."""
    rng = np.random.default_rng(seed)
    lean = (shift, -shift, shift, -shift)
    return [_unit(rng.standard_normal((n, width)) + s * np.eye(width)[0]) for n, s in zip(sizes, lean, strict=True)]


@pytest.mark.parametrize("spread,ddof", [("sample", 1), ("population", 0)])
def test_the_effect_is_that_of_the_plain_formula(spread, ddof):
    x, y, a, b = _sets(0, 0.5)
    found = association_test(x, y, a, b, spread)
    assert found.effect == pytest.approx(group_bias.effect_size(x, y, a, b, ddof))
    assert found.low <= found.effect <= found.high
    assert abs(found.effect) <= 2


def test_few_divisions_are_all_looked_at():
    x, y, a, b = _sets(1, 0.3, (5, 6, 4, 4))
    found = association_test(x, y, a, b)
    s_x, s_y = association.associations(x, a, b), association.associations(y, a, b)
    assert (found.exact, found.divisions) == (True, 462)
    assert found.p_value == pytest.approx(group_bias.exact_p(s_x, s_y))
    theirs = permutation_test((s_x, s_y), lambda u, v: u.mean() - v.mean(), alternative="greater", n_resamples=1000)
    assert found.p_value == pytest.approx(theirs.pvalue)


def test_random_divisions_agree_with_all_of_them(monkeypatch):
    x, y, a, b = _sets(2, 0.15)
    exact = association_test(x, y, a, b)
    monkeypatch.setattr(association, "MOST_EXACT", 10)
    sampled = association_test(x, y, a, b, permutations=20_000)
    assert (exact.exact, sampled.exact) == (True, False)
    assert sampled.p_value == pytest.approx(exact.p_value, abs=0.012)


def test_a_planted_association_is_found_and_its_absence_is_not():
    for seed in range(5):
        found = association_test(*_sets(seed, 2.0), samples=200)
        assert found.low > 0
        assert found.p_value < 0.01
        turned = association_test(*(s for i in (1, 0, 2, 3) for s in [_sets(seed, 2.0)[i]]), samples=200)
        assert turned.effect == pytest.approx(-found.effect)
        assert turned.p_value > 0.95
    small, held = [], []
    for seed in range(100):
        found = association_test(*_sets(100 + seed, 0.0, (12, 12, 8, 8)), permutations=500, samples=200)
        small.append(found.p_value <= 0.05)
        held.append(found.low <= 0 <= found.high)
    assert np.mean(small) < 0.12
    assert np.mean(held) > 0.88


def test_no_spread_is_no_effect_and_single_items_are_refused():
    same = _unit(np.ones((3, 4)))
    found = association_test(same, same, same, same)
    assert (found.effect, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    with pytest.raises(EvalError, match="at least 2 items; got 1"):
        association_test(same[:1], same, same, same)
