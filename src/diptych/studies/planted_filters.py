"""What each filter finds of planted faults: how many of each it drops, and what else it drops.

A record with the fault counts as found where it is dropped. A copy and its original are one pair, which counts as found
where one of the two is dropped: which one stays is the filter's choice (the first in the pool, as a rule).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from diptych.data.curate import CurationConfig, curate
from diptych.data.curations import house
from diptych.data.executors.executor import Executor
from diptych.data.filters.boilerplate import BoilerplateConfig
from diptych.data.filters.decontaminate import DecontaminateConfig
from diptych.data.filters.exact_duplicates import ExactDuplicatesConfig
from diptych.data.filters.filter import FilterConfig
from diptych.data.filters.near_duplicates import NearDuplicatesConfig
from diptych.data.filters.score import ScoreConfig
from diptych.data.filters.semantic_duplicates import SemanticDuplicatesConfig
from diptych.studies.planted_pool import CLEAN, FAULTS

PAIRS = ("exact_copy", "near_copy")
"""Faults that are a pair with a clean record."""
ALL = "all in a row"
AIMS = {
    "exact_duplicates": ("exact_copy",),
    "near_duplicates": PAIRS,
    "semantic_duplicates": PAIRS,
    "boilerplate": ("boilerplate",),
    "house:default": ("boilerplate",),
    "decontaminate": ("leaked",),
    "score": ("mismatched",),
    ALL: FAULTS,
}
"""What each filter is for; of other faults it finds what it happens to."""
MODELS = ("semantic_duplicates", "score", ALL)
"""Filters that depend on what a model has written."""
EXAMPLES = 20
Truth = dict[str, dict[str, str]]


def curations(scores: str, vectors: str, keep: float) -> dict[str, CurationConfig]:
    """The filters by name, with their own defaults: each alone, the house's curation, and all in a row.

    `scores`, `vectors`: the names under which a model has written them; `keep`: the share that stays by its scores.
    """
    alone: dict[str, FilterConfig] = {
        "exact_duplicates": ExactDuplicatesConfig(),
        "near_duplicates": NearDuplicatesConfig(),
        "semantic_duplicates": SemanticDuplicatesConfig(vectors=vectors),
        "boilerplate": BoilerplateConfig(),
        "decontaminate": DecontaminateConfig(),
        "score": ScoreConfig(score=scores, fraction=keep),
    }
    row = [alone[name] for name in ("exact_duplicates", "near_duplicates", "decontaminate", "score")]
    found = {name: CurationConfig(filters=(config,)) for name, config in alone.items()}
    found["house:default"] = house.default()
    found[ALL] = CurationConfig(filters=(*house.default().filters, *row))
    return {name: found[name] for name in AIMS}


def judge_filters(
    pool: Path, truth: Truth, chosen: dict[str, CurationConfig], out: Path, workers: Executor
) -> dict[str, dict[str, Any]]:
    """What each curation finds, by name: `tally`. The curations themselves are kept in `out`, a folder each."""
    found = {}
    for name, curation in chosen.items():
        folder = out / name.replace(":", "-").replace(" ", "_")
        curate(pool, curation, folder, workers)
        found[name] = tally(truth, reasons_of(folder)) | {"examples": _examples(pool, truth, folder)}
    return found


def reasons_of(curation: Path) -> dict[str, str]:
    """Of each record that was dropped, by uid, the reason."""
    table = pq.read_table(curation / "table.parquet", columns=["uid", "kept", "reason"]).to_pylist()
    return {row["uid"]: row["reason"] for row in table if not row["kept"]}


def tally(truth: Truth, dropped: Iterable[str]) -> dict[str, Any]:
    """How many were seen and dropped; of each fault, and of each way that it was made, how many are found of how many;
    how many clean ones are dropped of how many ("lost"), without originals whose copy stays: these pairs are found."""
    gone, pairs = set(dropped), _pairs(truth)
    hits: dict[str, Counter[str]] = defaultdict(Counter)
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for uid, row in truth.items():
        if row["fault"] == CLEAN:
            continue
        found = uid in gone or (row["fault"] in PAIRS and pairs[uid] in gone)
        for kind, name in (("found", row["fault"]), ("ways", f"{row['fault']}: {row['how']}")):
            if kind == "found" or row["how"]:
                hits[kind][name] += found
                sizes[kind][name] += 1
    originals = {original: uid for uid, original in pairs.items()}
    clean = [uid for uid, row in truth.items() if row["fault"] == CLEAN]
    lost = [uid for uid in clean if uid in gone and (uid not in originals or originals[uid] in gone)]
    return {
        "seen": len(truth),
        "dropped": len(gone),
        "found": {fault: [hits["found"][fault], sizes["found"][fault]] for fault in FAULTS if sizes["found"][fault]},
        "ways": {name: [hits["ways"][name], n] for name, n in sorted(sizes["ways"].items())},
        "lost": [len(lost), len(clean)],
    }


def guessed(dropped: float | int, seen: int, fault: str) -> float:
    """The share of a fault that is found by dropping as many records by lot; of a pair it is enough to hit one."""
    share = dropped / seen
    return 1 - (1 - share) ** 2 if fault in PAIRS else share


def _pairs(truth: Truth) -> dict[str, str]:
    """Of each copy its original, by uids of the pool."""
    clean = {row["picture_of"]: uid for uid, row in truth.items() if row["fault"] == CLEAN}
    return {uid: clean[row["picture_of"]] for uid, row in truth.items() if row["fault"] in PAIRS}


def _examples(pool: Path, truth: Truth, curation: Path) -> list[list[str]]:
    """[reason, caption] of clean records that were dropped and are no original of a copy, for a person to judge."""
    originals = set(_pairs(truth).values())
    reasons = reasons_of(curation)
    wanted = [u for u, row in truth.items() if u in reasons and row["fault"] == CLEAN and u not in originals]
    chosen = sorted(wanted)[:EXAMPLES]
    if not chosen:
        return []
    rows = pq.read_table(pool / "records.parquet", columns=["uid", "captions"], filters=[("uid", "in", chosen)])
    said = {row["uid"]: row["captions"][0] for row in rows.to_pylist()}
    return [[reasons[uid], said[uid]] for uid in chosen]
