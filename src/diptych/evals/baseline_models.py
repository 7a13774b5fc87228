"""Accuracies of other models on several sets, and the line on which they lie: what a model's own is compared with."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from diptych.core.errors import EvalError

LEAST = 3
"""So few models, and one more for each set, make no line."""


MANY = 1e6
"""Items of a baseline's accuracy, which is written as it is: 0 and 1 stand half an item from the end."""


class Baselines(NamedTuple):
    """m models' accuracies: on s sets whose distribution is the usual one, and on the shifted set."""

    models: tuple[str, ...]
    sets: tuple[str, ...]
    usual: Float64[np.ndarray, "m s"]
    shifted: Float64[np.ndarray, " m"]


def read_baselines(path: str, sets: Sequence[str], shifted: str) -> Baselines:
    """The columns `sets` and `shifted` of a CSV with a row a model (its name in the column "model"), as shares.

    Rows in which one of them is empty are left out.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = [{(k or "").strip(): (v or "").strip() for k, v in row.items()} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise EvalError(f"baselines must be a CSV with a row a model; got {path!r} ({error}).") from None
    columns = [*sets, shifted]
    lacking = [c for c in ("model", *columns) if not rows or c not in rows[0]]
    if lacking:
        raise EvalError(
            f"baselines must have the columns model, {', '.join(columns)}; {path!r} lacks {', '.join(lacking)}. It "
            f"has: {', '.join(rows[0]) if rows else 'no rows'}. Name the columns with references and shifted."
        )
    rows = [r for r in rows if all(r[c] for c in columns)]
    try:
        values = np.array([[float(r[c]) for c in columns] for r in rows]).reshape(-1, len(columns))
    except ValueError as error:
        raise EvalError(f"accuracies of baselines must be numbers; got {path!r} with {error}. Correct it.") from None
    if not ((values >= 0) & (values <= 1)).all():
        raise EvalError(
            f"accuracies of baselines must be shares in 0..1; got {values.min():g} to {values.max():g} in {path!r}. "
            "Divide percent by 100."
        )
    if len(rows) < LEAST + len(sets):
        raise EvalError(
            f"baselines must hold at least {LEAST + len(sets)} models for a line over {len(sets)} set(s); got "
            f"{len(rows)} with all of {', '.join(columns)} in {path!r}. Add models."
        )
    return Baselines(tuple(r["model"] for r in rows), tuple(sets), values[:, :-1], values[:, -1])


def logit(share: Float64[np.ndarray, "*n"], n: float) -> Float64[np.ndarray, "*n"]:
    """ln(p / (1 - p)), p kept half an item of `n` away from 0 and 1."""
    p = np.clip(share, 0.5 / n, 1 - 0.5 / n)
    return np.asarray(np.log(p / (1 - p)))


def sigmoid(x: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """1 / (1 + e^-x)."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -500, 500))))


def expected(
    usual: Float64[np.ndarray, "m s"],
    shifted: Float64[np.ndarray, " m"],
    mine: Float64[np.ndarray, "b s"],
    n: float,
    weights: Float64[np.ndarray, "#b m"] | None = None,
) -> Float64[np.ndarray, " b"]:
    """sigma(beta(logit mine)): the accuracy on the shifted set that models of these usual accuracies have, by the line
    (of several sets: the plane) of least squares through the baselines in logit space; one fit a row of `weights`.
    `n`: how many items the model's accuracies are of."""
    x = np.concatenate([logit(usual, MANY), np.ones((len(usual), 1))], 1)  # (m, s + 1)
    y = logit(shifted, MANY)
    at = np.concatenate([logit(mine, n), np.ones((len(mine), 1))], 1)
    if weights is None:
        weights = np.ones((1, len(usual)))
    gram = np.einsum("bm,mi,mj->bij", weights, x, x)
    moment = np.einsum("bm,mi,m->bi", weights, x, y)
    beta = np.einsum("bij,bj->bi", np.linalg.pinv(gram, rcond=1e-10, hermitian=True), moment)
    return sigmoid((at * beta).sum(1))
