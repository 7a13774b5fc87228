"""The report over made-up counts: its numbers by hand, its tables as a person reads them."""

from typing import Any

import numpy as np
import pytest

from diptych.studies.planted_filters import AIMS, ALL, guessed
from diptych.studies.planted_table import (
    balance_lines,
    estimates,
    filter_lines,
    filter_numbers,
    score_lines,
    score_numbers,
    trained_lines,
    trained_numbers,
)

SIZES = {"mismatched": 30, "exact_copy": 10, "near_copy": 10, "boilerplate": 10, "leaked": 1}
NAMES = list(AIMS)


def _tally(dropped: int, hits: dict[str, int], lost: int = 0) -> dict[str, Any]:
    return {
        "seen": 100,
        "dropped": dropped,
        "found": {fault: [hits.get(fault, 0), n] for fault, n in SIZES.items()},
        "ways": {"exact_copy: equal": [hits.get("exact_copy", 0), 10], "near_copy: cropped": [1, 4]},
        "lost": [lost, 39],
        "examples": [["low_score", "a dog"]] if lost else [],
    }


def _by_filter() -> dict[str, list[dict[str, Any]]]:
    return {name: [_tally(20, {"mismatched": 12, "exact_copy": 3, "near_copy": 2}, 3)] for name in NAMES}


def test_precision_and_recall_are_shares_with_chance_beside() -> None:
    found = estimates([_tally(20, {"mismatched": 12}, 8)], ("mismatched",))
    assert found["recall"][0] == pytest.approx(12 / 30)
    assert found["precision"][0] == pytest.approx(12 / 20)
    assert found["recall_guessing"] == pytest.approx(0.2)
    assert found["precision_guessing"] == pytest.approx(0.3)  # the fault's share of the pool
    for value, low, high in (found["recall"], found["precision"]):
        assert low < value < high
    pairs = estimates([_tally(20, {"exact_copy": 5, "near_copy": 3}, 12)], ("exact_copy", "near_copy"))
    assert pairs["recall"][0] == pytest.approx(8 / 20)
    assert pairs["recall_guessing"] == pytest.approx(guessed(20, 100, "near_copy"))
    assert pairs["precision_guessing"] == pytest.approx(0.36 * 20 / 20)
    two = estimates([_tally(20, {"mismatched": 12}), _tally(30, {"mismatched": 15})], ("mismatched",))
    assert two["recall"][0] == pytest.approx(13.5 / 30)
    nothing = estimates([_tally(0, {})], ("leaked",))
    assert nothing["precision"] == []
    assert nothing["precision_guessing"] is None


def test_the_tables_of_filters_name_each_fault_and_guessing() -> None:
    numbers = filter_numbers(_by_filter())
    assert numbers["score"]["clean_lost"][0] == pytest.approx(3 / 39)
    assert numbers["score"]["clean_dropped"] == [["low_score", "a dog"]]
    assert numbers[ALL]["aim"]["wanted"] == sum(SIZES.values())
    text = "\n".join(filter_lines(numbers))
    assert "| mismatched captions | 30 | 30.0% |" in text
    assert "**40.0%**" in text  # score on what it is for
    assert "| guessing finds of pairs | | | " + " | ".join(["36.0%"] * len(NAMES)) in text
    assert "| clean records dropped | | | 7.7% |" in text
    assert "| near copies | cropped | 4 | near_duplicates | 25.0% [" in text
    widths = [line.count("|") for line in text.splitlines() if line.startswith("| ") and "exact copies" in line]
    assert widths[0] == 4 + len(NAMES)


def test_scores_are_told_by_length_of_training() -> None:
    rng = np.random.default_rng(0)

    def cell(length: int, seed: int) -> dict[str, Any]:
        scores = {"clean": (rng.normal(1, 1, 50)).tolist(), "mismatched": rng.normal(0, 1, 40).tolist()}
        filters = {"score": _tally(30, {"mismatched": 20}, 10)}
        return {"samples_seen": length, "seed": seed, "scores": scores, "filters": filters}

    rows = score_numbers([cell(200, 0), cell(100, 0), cell(200, 1)])
    assert [row["samples_seen"] for row in rows] == [100, 200]
    assert rows[0]["mismatched"]["low"] < rows[0]["mismatched"]["value"] < rows[0]["mismatched"]["high"]
    assert "boilerplate" not in rows[0]
    text = "\n".join(score_lines(rows, 0.7))
    assert "| 100 | " in text
    assert "| guessing | 50.0% | 50.0% | 30.0% | 30.0% |" in text


def test_balance_is_told_beside_a_random_set() -> None:
    row = {"pool": 0.2, "balanced": 0.3, "random": 0.2, "difference": 0.1, "low": 0.08, "high": 0.12}
    counts = {"pool": 50.0, "balanced": 48.0, "random": 40.5, "difference": 7.5, "low": 5.0, "high": 10.0}
    found = {"records": 90, "kept": 60.5, "draws": 10, "concepts": 50, "tail_concepts": 30, "t": 10}
    text = "\n".join(balance_lines(found | {"measures": {"tail records": row, "5 or more": counts}}))
    assert "| records with a concept of the tail | 20.0% | 30.0% | 20.0% | +10.0% [+8.0%, +12.0%] |" in text
    assert "| concepts with 5 or more | 50.0 | 48.0 | 40.5 | +7.5 [+5.0, +10.0] |" in text
    assert "(at most t = 10 records each)" in text


def test_balanced_and_random_are_paired_by_item() -> None:
    kinds = ["tail"] * 30 + ["head"] * 20 + [""] * 10
    good, bad = [1] * 30 + [40] * 30, [40] * 60

    def cell(name: str, ranks: list[int]) -> dict[str, Any]:
        about = {"set": name, "seed": 0, "samples_seen": 100, "records": 70, "faulty": 0.4}
        return about | {"ranks": ranks, "kinds": kinds}

    found = trained_numbers([cell("balanced", good), cell("random", bad)])
    rows = found["rows"]
    assert (rows["all R@1"]["items"], rows["tail R@1"]["items"], rows["head R@1"]["items"]) == (60, 30, 20)
    assert rows["tail R@1"]["difference"][0] == pytest.approx(1.0)
    assert rows["tail R@1"]["p_adjusted"] < 0.05
    assert rows["head R@5"]["difference"][0] == 0
    assert rows["head R@5"]["p_adjusted"] == 1
    assert rows["tail R@5"]["chance"] == pytest.approx(5 / 60)
    text = "\n".join(trained_lines(found))
    assert "over items of one seed: not what another seed would have learned" in text
    assert "| tail R@1 | 30 | 100.0% [" in text
    assert "| head R@10 | 20 |" in text
    assert "of the random one 40.0% have a mismatched" in text


def test_seeds_that_disagree_widen_the_difference_of_balanced_and_random() -> None:
    kinds, n = ["head"] * 60, 60

    def cell(name: str, right: int) -> dict[str, Any]:
        about = {"set": name, "samples_seen": 100, "records": 70, "faulty": 0.4}
        return about | {"ranks": [1] * right + [40] * (n - right), "kinds": kinds}

    random = [cell("random", 20), cell("random", 20)]
    alike = trained_numbers([cell("balanced", 35), cell("balanced", 35), *random])
    apart = trained_numbers([cell("balanced", 20), cell("balanced", 50), *random])
    steady, shaken = (found["rows"]["all R@1"] for found in (alike, apart))
    assert steady["difference"][0] == pytest.approx(shaken["difference"][0])
    assert steady["p_adjusted"] < 0.05 < shaken["p_adjusted"]
    assert "over items and seeds." in "\n".join(trained_lines(apart))
