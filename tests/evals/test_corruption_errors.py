import numpy as np
import pytest

from diptych.core.errors import EvalError
from diptych.evals.corruption_errors import Errors, ratio_estimate, read_errors, signed_estimate
from diptych.evals.statistics import mean_estimate


def _csv(path, rows):
    path.write_text("corruption, severity,error\n" + "\n".join(",".join(map(str, r)) for r in rows) + "\n")
    return str(path)


def test_a_csv_is_read_and_chosen_from(tmp_path):
    path = _csv(tmp_path / "r.csv", [("clean", 0, 0.1), ("jpeg", 2, 0.3), ("jpeg", 1, 0.2), ("contrast", 1, 0.5)])
    found = read_errors(path, ("jpeg",), (1, 2))
    assert (found.errors.tolist(), found.clean) == ([[0.2, 0.3]], 0.1)
    assert found.degradation() == pytest.approx([0.3])
    assert found._replace(clean=None).degradation() is None
    assert found._replace(clean=0.25).degradation() is None  # a reference that corruption does not hurt
    assert found.rows()[0] == {"corruption": "clean", "severity": 0, "error": 0.1}


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(EvalError, match=r"a CSV with the columns .*got 'nowhere.csv' \(FileNotFoundError"):
        read_errors("nowhere.csv", ("jpeg",), (1,))
    (tmp_path / "odd.csv").write_text("kind,error\njpeg,0.1\n")
    with pytest.raises(EvalError, match="columns corruption, severity and error"):
        read_errors(str(tmp_path / "odd.csv"), ("jpeg",), (1,))
    with pytest.raises(EvalError, match="lacks 1, the first jpeg 3"):
        read_errors(_csv(tmp_path / "a.csv", [("jpeg", 1, 0.2)]), ("jpeg",), (1, 3))
    with pytest.raises(EvalError, match=r"got 20 to 20 in .*Give shares, not percent"):
        read_errors(_csv(tmp_path / "b.csv", [("jpeg", 1, 20)]), ("jpeg",), (1,))


def test_signed_means_have_intervals_wherever_they_lie():
    rng = np.random.default_rng(0)
    drop = rng.integers(-1, 2, 400).astype(float)
    found, plain = signed_estimate(drop, None), mean_estimate(drop)
    assert (found.value, found.n, found.higher_is_better) == (pytest.approx(plain.value), 400, False)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.01)
    assert signed_estimate(np.full(9, 1.5), None).value == 1.5
    assert 0 < signed_estimate(np.zeros(9), None).high < 0.3  # nine that agree do not prove that all do


def test_a_ratio_of_sums():
    rng = np.random.default_rng(1)
    lower = (rng.random(500) < 0.8).astype(float)
    upper = lower * (rng.random(500) < 0.25)
    found = ratio_estimate(upper, lower, np.arange(500))
    assert found.value == pytest.approx(upper.sum() / lower.sum())
    assert found.low < 0.25 < found.high
    assert (found.high - found.low) / 3.92 == pytest.approx((0.25 * 0.75 / 400) ** 0.5, rel=0.15)
    assert ratio_estimate(upper, lower, np.arange(500) // 2).n == 250


def test_rows_go_round():
    errors = Errors(("jpeg", "contrast"), (1, 5), np.array([[0.1, 0.2], [0.3, 0.4]]), None)
    assert [r["error"] for r in errors.rows()] == [0.1, 0.2, 0.3, 0.4]
