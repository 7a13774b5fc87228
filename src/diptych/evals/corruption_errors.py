"""Errors by corruption and severity, of this model or of one that mCE is relative to; estimates that leave 0..1."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Shaped

from diptych.core.errors import DiptychError, EvalError
from diptych.evals.eval import Estimate
from diptych.evals.statistics import bootstrap_weights, paired_difference

CLEAN = "clean"


class Errors(NamedTuple):
    """The share of wrong answers under each of k corruptions at each of s severities; `clean` None: not known.

    mCE (Hendrycks and Dietterich, 2019) is mean_k (sum_s E_ks / sum_s R_ks) with R another model's errors; the relative
    one is mean_k (sum_s (E_ks - E_clean) / sum_s (R_ks - R_clean)).
    """

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    errors: Float64[np.ndarray, "k s"]
    clean: float | None

    def degradation(self) -> Float64[np.ndarray, " k"] | None:
        """sum_s (R_ks - R_clean), if the clean error is known and all are above 0."""
        if self.clean is None:
            return None
        found = (self.errors - self.clean).sum(1)
        return found if (found > 0).all() else None

    def rows(self) -> list[dict[str, Any]]:
        """As JSON values, which `read_errors` reads."""
        some = [] if self.clean is None else [{"corruption": CLEAN, "severity": 0, "error": self.clean}]
        return some + [
            {"corruption": k, "severity": s, "error": float(self.errors[i, j])}
            for i, k in enumerate(self.corruptions)
            for j, s in enumerate(self.severities)
        ]


def read_errors(path: str, corruptions: Sequence[str], severities: Sequence[int]) -> Errors:
    """The errors in a file (a result of the robustness eval, or a CSV), of these corruptions and severities."""
    try:
        rows = _result_rows(Path(path)) if path.endswith(".json") else _csv_rows(Path(path))
        known = {(str(r["corruption"]), int(r["severity"])): float(r["error"]) for r in rows}
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, DiptychError) as error:
        raise EvalError(
            f"reference must be a result of the robustness eval, or a CSV with the columns corruption, severity and "
            f"error; got {path!r} ({type(error).__name__}: {error})."
        ) from None
    missing = [f"{k} {s}" for k in corruptions for s in severities if (k, s) not in known]
    if missing:
        raise EvalError(
            f"reference must hold the error of every corruption and severity that is asked for; {path!r} lacks "
            f"{len(missing)}, the first {missing[0]}. Ask for fewer (corruptions, severities), or add them."
        )
    errors = np.array([[known[k, s] for s in severities] for k in corruptions])
    if not ((errors >= 0) & (errors <= 1)).all() or not (errors.sum(1) > 0).all():
        raise EvalError(
            f"errors of a reference must be shares in 0..1, and not all 0 for any corruption; got {errors.min():g} to "
            f"{errors.max():g} in {path!r}. Give shares, not percent."
        )
    return Errors(tuple(corruptions), tuple(severities), errors, known.get((CLEAN, 0)))


def signed_estimate(
    values: Shaped[np.ndarray, " n"], clusters: Int[np.ndarray, " n"] | None, samples: int = 1000, seed: int = 0
) -> Estimate:
    """The mean of values that may lie outside 0..1 (a drop: lower is better), with its interval."""
    test = paired_difference(values, np.zeros(len(values)), clusters, samples, seed)
    low, high = min(test.low, test.difference), max(test.high, test.difference)
    return Estimate(value=test.difference, low=low, high=high, n=test.n, higher_is_better=False)


def ratio_estimate(
    upper: Shaped[np.ndarray, " n"],
    lower: Shaped[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"],
    samples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The ratio of two sums over the same items (a relative drop: lower is better), with its bootstrap interval."""
    label = np.unique(clusters, return_inverse=True)[1]
    above, below = (np.bincount(label, weights=np.asarray(x, float)) for x in (upper, lower))
    draws = []
    for weights in bootstrap_weights(len(above), samples, seed, "ratio"):
        sums = weights @ below
        draws.append((weights @ above)[sums > 0] / sums[sums > 0])
    value = float(above.sum() / below.sum())
    low, high = np.quantile(np.concatenate(draws), (0.025, 0.975))
    return Estimate(
        value=value, low=min(float(low), value), high=max(float(high), value), n=len(above), higher_is_better=False
    )


def _result_rows(path: Path) -> list[dict[str, Any]]:
    from diptych.evals.find import read_result

    return list(read_result(path).artifacts["errors"])


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [{k.strip(): v for k, v in row.items()} for row in csv.DictReader(file)]
