"""The table over all paradigms: a row a recipe and way of scoring, intervals, and what is told from the first."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diptych.evals.statistics import holm, paired_difference, score_interval
from diptych.studies.paradigm_scores import WAYS

METRICS = {"zero_shot": "zero-shot", "recall_at_1": "text to image R@1", "recall_at_5": "R@5"}
Cells = Sequence[dict[str, Any]]


def hits_of(cells: Cells, way: str, metric: str) -> np.ndarray:
    """Whether each item is a hit, a mean over the cells (seeds): (items)."""
    side, most = ("names", 1) if metric == "zero_shot" else ("pictures", int(metric.rpartition("_")[2]))
    return (np.array([c["ranks"][way][side] for c in cells]) <= most).mean(0)


def table(cells: Cells, items: int, first: str) -> tuple[str, dict[str, Any]]:
    """The report in Markdown, and its numbers: a table a budget."""
    lines: list[str] = []
    numbers: dict[str, Any] = {"chance": 1 / items, "budgets": {}}
    for budget in dict.fromkeys(c["budget"] for c in cells):
        mine = [c for c in cells if c["budget"] == budget]
        rows = _rows(mine, first)
        numbers["budgets"][budget] = rows
        lines += _lines(budget, rows, mine, items, first)
    return "\n".join(lines) + "\n", numbers


def _rows(cells: Cells, first: str) -> list[dict[str, Any]]:
    """A row a recipe and way, with paired tests of `METRICS` against the recipe `first` by its first way, Holm over
    all of them."""
    by_recipe = {name: [c for c in cells if c["recipe"] == name] for name in dict.fromkeys(c["recipe"] for c in cells)}
    rows = []
    for name, of in by_recipe.items():
        for way in of[0]["ranks"]:
            values = {m: hits_of(of, way, m) for m in METRICS}
            about = {k: float(np.mean([c[k] for c in of])) for k in ("samples_seen", "seconds", "parameters")}
            metrics = {m: [float(v.mean()), *score_interval(v)] for m, v in values.items()}
            extra = {k: _over_seeds([c[k] for c in of]) for k in ("probe", "scene_tests") if k in of[0]}
            rows.append({"recipe": name, "way": way, **about, "metrics": metrics, **extra, "hits": values})
    base = next((r for r in rows if r["recipe"] == first), None)
    tests = {}
    if base is not None:
        for i, row in enumerate(rows):
            if row is not base:
                for m in METRICS:
                    tests[f"{i}/{m}"] = paired_difference(row["hits"][m], base["hits"][m])
    adjusted = holm({k: t.p_value for k, t in tests.items()})
    for i, row in enumerate(rows):
        del row["hits"]
        row["against_first"] = {
            m: {"difference": t.difference, "low": t.low, "high": t.high, "p_adjusted": adjusted[f"{i}/{m}"]}
            for m in METRICS
            if (t := tests.get(f"{i}/{m}")) is not None
        }
    return rows


def _lines(budget: str, rows: list[dict[str, Any]], cells: Cells, items: int, first: str) -> list[str]:
    seeds = len({c["seed"] for c in cells})
    equal = "equally many samples" if budget == "samples" else "equally much training time"
    extra = [k for k in ("probe", "scene_tests") if any(k in r for r in rows)]
    titles = {"probe": "linear probe", "scene_tests": "scene tests"}
    lines = [
        f"### {equal.capitalize()}",
        "",
        f"{items} held-out pictures and their names (chance {1 / items:.1%}), {seeds} seed(s), 95 % intervals over "
        f"pictures, not over trainings; * told from {first} (paired, Holm over all rows and the columns "
        f"{', '.join(METRICS.values())} of this table).",
        "",
        "| recipe | scored by | samples | minutes | parameters | "
        + " | ".join([*METRICS.values(), *(titles[k] for k in extra)])
        + " |",
        "|---" * (5 + len(METRICS) + len(extra)) + "|",
    ]
    said: set[str] = set()
    for row in rows:
        name = row["recipe"] if row["recipe"] not in said else ""
        about = f"{row['samples_seen']:,.0f} | {row['seconds'] / 60:.1f} | {row['parameters'] / 1e6:.2f} M"
        about = about if name else " | | "
        told = [_said(row["metrics"][m]) + _star(row, m) for m in METRICS]
        beside = [_estimate(row[k]) if name and k in row else "" for k in extra]
        lines.append(f"| {name} | {WAYS[row['way']]} | {about} | " + " | ".join([*told, *beside]) + " |")
        said.add(row["recipe"])
    chance = next((r for r in rows if extra and all(k in r for k in extra)), None)
    guesses = [f"{1 / items:.1%}", f"{1 / items:.1%}", f"{min(1, 5 / items):.1%}"]
    guesses += [f"{chance[k]['chance']:.1%}" if chance and chance[k]["chance"] is not None else "" for k in extra]
    lines += ["| guessing | | | | | " + " | ".join(guesses) + " |", ""]
    return lines


def _over_seeds(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of estimates on the same items. So are the ends of its interval, as if seeds erred together: too wide,
    if anything."""
    return found[0] | {k: float(np.mean([f[k] for f in found])) for k in ("value", "low", "high")}


def _star(row: dict[str, Any], metric: str) -> str:
    found = row["against_first"].get(metric)
    return " *" if found and found["p_adjusted"] <= 0.05 else ""


def _said(estimate: list[float]) -> str:
    value, low, high = estimate
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def _estimate(found: dict[str, Any]) -> str:
    return _said([found["value"], found["low"], found["high"]])
