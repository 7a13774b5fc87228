"""The table: seeds are averaged, the first recipe is what others are told from."""

import json

import numpy as np
import pytest

from diptych.evals.intervals import wilson
from diptych.studies.paradigm_table import hits_of, table


def cell(recipe: str, seed: int, good: int) -> dict:
    ranks = [1] * good + [9] * (40 - good)
    return {
        "recipe": recipe,
        "budget": "samples",
        "seed": seed,
        "samples_seen": 100,
        "seconds": 60.0,
        "parameters": 2_000_000,
        "ranks": {"cosine": {"names": ranks, "pictures": ranks}},
        "probe": {"value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1, "n": 40},
    }


def test_a_clear_difference_is_starred_and_none_is_not() -> None:
    cells = [cell("a", 0, 36), cell("b", 0, 4), cell("c", 0, 36)]
    text, numbers = table(cells, 40, "a")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "90.0%" in rows["a"]
    assert "*" not in rows["a"] + rows["c"]
    assert rows["b"].count(" *") == 3
    assert "50.0% [40.0%, 60.0%]" in rows["a"]
    assert "10.0%" in rows["guessing"]
    json.dumps(numbers)


def test_probes_are_averaged_over_seeds_and_rare_hits_have_wilsons_interval() -> None:
    other = cell("a", 1, 2) | {"probe": {"value": 0.7, "low": 0.6, "high": 0.8, "chance": 0.1, "n": 40}}
    _, numbers = table([cell("a", 0, 2), other], 40, "a")
    row = numbers["budgets"]["samples"][0]
    assert row["probe"]["value"] == pytest.approx(0.6)
    assert row["probe"]["high"] == pytest.approx(0.7)
    assert row["metrics"]["zero_shot"][2] == pytest.approx(wilson(2, 40).high, abs=0.02)


def test_seeds_are_averaged_item_by_item() -> None:
    hits = hits_of([cell("a", 0, 40), cell("a", 1, 0)], "cosine", "zero_shot")
    assert np.array_equal(hits, np.full(40, 0.5))
