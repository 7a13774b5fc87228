"""The report: means, intervals, paired differences over seeds, Holm, and what was dropped."""

from typing import Any

import numpy as np
import pytest

from diptych.evals.paired import seeds_difference
from diptych.evals.statistics import score_interval
from diptych.studies.curation_judging import METRICS
from diptych.studies.curation_table import rows_of, table

ITEMS = 200


def cell(curation: str, seed: int, rate: float, kept: int = 100) -> dict[str, Any]:
    """Hits of the first `rate` of the items, a few of them others in each seed."""
    base = np.arange(ITEMS) < rate * ITEMS
    hits = {m: np.roll(base, seed).astype(int).tolist() for m in METRICS}
    keys = [f"{i}" for i in range(ITEMS)]
    ways = {
        way: {"keys": keys, "clusters": list(range(ITEMS)), "hits": {m: h for m, h in hits.items() if way in m}}
        for way in ("i2t", "t2i")
    }
    dropped = [] if curation == "raw" else [{"filter": "1 score", "reason": "low_score", "count": 10 + 2 * seed}]
    return {
        **{"curation": curation, "seed": seed, "kept": kept, "of": 100, "samples_seen": 1000, "seconds": 2.0},
        **{"split": "test", "copies": 3, "alike": 2, "unfit": 1, "dropped": dropped},
        "judged": {"ways": ways, "chance": dict.fromkeys(METRICS, 0.005)},
    }


def both(seeds: int, rate: float) -> list[dict[str, Any]]:
    return [c for s in range(seeds) for c in (cell("better", s, rate, 80), cell("raw", s, 0.3))]


def test_a_difference_is_tested_against_raw_over_items_and_seeds() -> None:
    cells = both(2, 0.6)
    raw, better = rows_of(cells)
    assert (raw["curation"], better["curation"]) == ("raw", "better")  # raw first, whatever came first
    hits = {c["curation"]: [] for c in cells}
    for c in cells:
        hits[c["curation"]].append(c["judged"]["ways"]["t2i"]["hits"]["t2i_recall_at_1"])
    test = seeds_difference(np.array(hits["better"], float), np.array(hits["raw"], float), np.arange(ITEMS))
    found = better["against_raw"]["t2i_recall_at_1"]
    assert (found["difference"], found["low"]) == pytest.approx((test.difference, test.low))
    assert found["difference"] == pytest.approx(0.3)
    assert found["p_adjusted"] == pytest.approx(min(1, 4 * test.p_value))  # four alike
    assert found["verdict"] == "better"
    low, high = score_interval(np.mean(hits["better"], 0), np.arange(ITEMS))
    metric = better["metrics"]["t2i_recall_at_1"]
    assert (metric["low"], metric["high"]) == pytest.approx((low, high))
    assert metric["by_seed"] == pytest.approx([0.6, 0.6])
    assert better["dropped"] == [{"filter": "1 score", "reason": "low_score", "count": 11.0}]


def test_what_is_alike_is_not_told_apart() -> None:
    rows = rows_of(both(1, 0.3))
    assert {f["verdict"] for f in rows[1]["against_raw"].values()} == {"indistinguishable"}


def test_the_text_names_levels_and_limits() -> None:
    cells = both(2, 0.6)
    text = table("stamps", "clip:tiny", cells, rows_of(cells))
    assert "### stamps" in text
    assert "1,000 samples seen in each run, 2 seed(s); 200 images of test (left out: 3 as copies" in text
    assert "| better | 80.0% | 12.5 | 60.0% [" in text
    assert "| guessing | | | 0.5% | 0.5% | 0.5% | 0.5% |" in text
    assert "| better | +30.0 [" in text
    assert "] * |" in text
    assert "What better dropped, of 100: 11 low_score (1 score)." in text
    one = both(1, 0.6)
    assert "of one seed: not what another seed would have learned" in table("x", "clip:tiny", one, rows_of(one))


def test_few_reasons_are_listed_and_the_rest_is_counted() -> None:
    cells = both(1, 0.3)
    cells[0]["dropped"] = [{"filter": "1 f", "reason": f"r{i}", "count": 100 - i} for i in range(14)]
    text = table("x", "clip:tiny", cells, rows_of(cells))
    assert "100 r0 (1 f)" in text
    assert "175 for other reasons" in text
