import numpy as np
import pytest

from diptych.core.errors import EvalError
from diptych.evals.baseline_models import expected, logit, read_baselines, sigmoid


def _csv(path, rows, head="model,a,b,far"):
    path.write_text("\n".join([head, *(",".join(map(str, r)) for r in rows)]) + "\n")
    return str(path)


ROWS = [(f"m{i}", 0.3 + i / 10, 0.2 + i / 10, 0.1 + i / 10) for i in range(6)]


def test_a_cloud_is_read_and_rows_with_gaps_are_left_out(tmp_path):
    found = read_baselines(_csv(tmp_path / "b.csv", [*ROWS, ("half", "", 0.5, 0.4)]), ("b", "a"), "far")
    assert (found.models, found.sets) == (tuple(f"m{i}" for i in range(6)), ("b", "a"))
    assert found.usual[0].tolist() == [0.2, 0.3]
    assert len(read_baselines(str(tmp_path / "b.csv"), ("b",), "far").models) == 7


def test_logits_go_back_and_never_to_infinity():
    p = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(sigmoid(logit(p, 1000.0)), p)
    assert sigmoid(logit(np.array([0.0, 1.0]), 50.0)).tolist() == pytest.approx([0.01, 0.99])


def test_the_line_is_that_of_least_squares_in_logit_space():
    rng = np.random.default_rng(0)
    usual = rng.uniform(0.2, 0.9, (30, 2))
    shifted = sigmoid(0.8 * logit(usual[:, 0], 1e6) - 0.7 + rng.normal(0, 0.1, 30))
    slope, offset = np.polyfit(logit(usual[:, 0], 1e6), logit(shifted, 1e6), 1)
    mine = np.array([[0.5], [0.8]])
    by_hand = sigmoid(slope * logit(mine[:, 0], 1000.0) + offset)
    np.testing.assert_allclose(expected(usual[:, :1], shifted, mine, 1000.0), by_hand)
    design = np.concatenate([logit(usual, 1e6), np.ones((30, 1))], 1)
    plane = np.linalg.lstsq(design, logit(shifted, 1e6), rcond=None)[0]
    both = np.array([[0.5, 0.6]])
    by_hand = sigmoid(logit(both, 1000.0) @ plane[:2] + plane[2])
    np.testing.assert_allclose(expected(usual, shifted, both, 1000.0), by_hand)
    weights = rng.multinomial(30, np.full(30, 1 / 30), 2).astype(float)
    again = np.repeat(np.arange(30), weights[1].astype(int))
    np.testing.assert_allclose(
        expected(usual[:, :1], shifted, mine, 1000.0, weights)[1],
        expected(usual[again, :1], shifted[again], mine[1:], 1000.0)[0],
    )


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(EvalError, match="baselines must be a CSV with a row a model; got 'nowhere'"):
        read_baselines("nowhere", ("a",), "far")
    path = _csv(tmp_path / "b.csv", ROWS)
    with pytest.raises(EvalError, match=r"lacks c\. It has: model, a, b, far\. Name the columns"):
        read_baselines(path, ("c",), "far")
    with pytest.raises(EvalError, match=r"at least 5 models for a line over 2 set\(s\); got 4"):
        read_baselines(_csv(tmp_path / "c.csv", ROWS[:4]), ("a", "b"), "far")
    with pytest.raises(EvalError, match="Divide percent by 100"):
        read_baselines(_csv(tmp_path / "d.csv", [("m", 30, 20, 10)] * 6), ("a",), "far")
    with pytest.raises(EvalError, match="must be numbers"):
        read_baselines(_csv(tmp_path / "e.csv", [("m", "x", 20, 10)] * 6), ("a",), "far")
