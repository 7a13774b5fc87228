"""The report on curated against raw: a table a dataset, intervals, what each curation kept and why the rest went."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diptych.evals.paired import SeedsTest, seeds_difference
from diptych.evals.statistics import holm, score_interval
from diptych.studies.curation_judging import METRICS
from diptych.studies.curation_selections import RAW

TITLES = {
    "i2t_recall_at_1": "image to text R@1",
    "i2t_recall_at_5": "R@5",
    "t2i_recall_at_1": "text to image R@1",
    "t2i_recall_at_5": "R@5",
}
MOST_REASONS = 12
Cells = Sequence[dict[str, Any]]


def rows_of(cells: Cells) -> list[dict[str, Any]]:
    """A row a curation, of one dataset's cells: means over seeds with intervals over items, and the paired difference
    against raw, Holm over all rows and `METRICS`."""
    by_curation = {name: [c for c in cells if c["curation"] == name] for name in dict.fromkeys(_names(cells))}
    raw = by_curation[RAW]
    tests = {
        f"{name}/{metric}": seeds_difference(_hits(of, metric), _hits(raw, metric), _clusters(raw, metric))
        for name, of in by_curation.items()
        if name != RAW
        for metric in METRICS
    }
    adjusted = holm({key: test.p_value for key, test in tests.items()})
    rows = []
    for name, of in by_curation.items():
        metrics, against = {}, {}
        for metric in METRICS:
            values = _hits(of, metric).mean(0)
            low, high = score_interval(values, _clusters(of, metric))
            metrics[metric] = {
                "value": float(values.mean()),
                "low": low,
                "high": high,
                "chance": of[0]["judged"]["chance"][metric],
                "by_seed": _hits(of, metric).mean(1).tolist(),
            }
            if (test := tests.get(f"{name}/{metric}")) is not None:
                against[metric] = _described(test, adjusted[f"{name}/{metric}"])
        means = {k: float(np.mean([c[k] for c in of])) for k in ("kept", "of", "samples_seen", "seconds")}
        rows.append({"curation": name, **means, "metrics": metrics, "against_raw": against, "dropped": _dropped(of)})
    return rows


def table(dataset: str, recipe: str, cells: Cells, rows: list[dict[str, Any]]) -> str:
    """One dataset's part of the report, in Markdown."""
    first, seeds = cells[0], len({c["seed"] for c in cells})
    images = len(first["judged"]["ways"]["i2t"]["keys"])
    over = "items and seeds" if seeds > 1 else "items of one seed: not what another seed would have learned"
    lines = [
        f"### {dataset}",
        "",
        f"{recipe}, {first['samples_seen']:,} samples seen in each run, {seeds} seed(s); {images:,} images of "
        f"{first['split']} (left out: {first['copies']:,} as copies of training images, {first['alike']:,} that look "
        f"like one before them, {first['unfit']:,} without a readable image or a caption). 95 % intervals, of "
        f"differences over {over}; * told from raw (Holm over all differences of this table).",
        "",
        "| curation | keeps | epochs | " + " | ".join(TITLES.values()) + " |",
        "|---" * (3 + len(TITLES)) + "|",
    ]
    for row in rows:
        said = [_interval(row["metrics"][m]) for m in METRICS]
        epochs = row["samples_seen"] / row["kept"]
        lines.append(f"| {row['curation']} | {row['kept'] / row['of']:.1%} | {epochs:.1f} | " + " | ".join(said) + " |")
    lines.append("| guessing | | | " + " | ".join(f"{rows[0]['metrics'][m]['chance']:.1%}" for m in METRICS) + " |")
    lines += ["", "| less raw, in points | " + " | ".join(TITLES.values()) + " |", "|---" * (1 + len(TITLES)) + "|"]
    for row in rows[1:]:
        lines.append(f"| {row['curation']} | " + " | ".join(_difference(row["against_raw"][m]) for m in METRICS) + " |")
    for row in rows[1:]:
        lines += ["", f"What {row['curation']} dropped, of {row['of']:,.0f}: {_reasons(row['dropped'])}."]
    return "\n".join([*lines, ""])


def _names(cells: Cells) -> list[str]:
    """The curations, raw first."""
    return [RAW, *(c["curation"] for c in cells)]


def _hits(cells: Cells, metric: str) -> np.ndarray:
    """Hits: (seeds, items)."""
    return np.array([c["judged"]["ways"][metric[:3]]["hits"][metric] for c in cells], dtype=float)


def _clusters(cells: Cells, metric: str) -> np.ndarray:
    return np.array(cells[0]["judged"]["ways"][metric[:3]]["clusters"])


def _described(test: SeedsTest, adjusted: float) -> dict[str, Any]:
    return {
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "p_value": test.p_value,
        "p_adjusted": adjusted,
        "verdict": test.verdict(p_value=adjusted),
        "clusters": test.n,
        "discordant": test.discordant,
    }


def _dropped(cells: Cells) -> list[dict[str, Any]]:
    """By filter and reason, a mean over the seeds (an own model's scores differ by seed)."""
    total: dict[tuple[str, str], int] = {}
    for cell in cells:
        for found in cell["dropped"]:
            key = (found["filter"], found["reason"])
            total[key] = total.get(key, 0) + found["count"]
    return [{"filter": f, "reason": r, "count": n / len(cells)} for (f, r), n in sorted(total.items())]


def _interval(found: dict[str, Any]) -> str:
    return f"{found['value']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"


def _difference(found: dict[str, Any]) -> str:
    star = " *" if found["verdict"] != "indistinguishable" else ""
    return f"{100 * found['difference']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]{star}"


def _reasons(dropped: list[dict[str, Any]]) -> str:
    most = sorted(dropped, key=lambda d: -d["count"])
    said = ", ".join(f"{d['count']:,.0f} {d['reason']} ({d['filter']})" for d in most[:MOST_REASONS])
    rest = sum(d["count"] for d in most[MOST_REASONS:])
    return (said or "nothing") + (f", {rest:,.0f} for other reasons" if rest else "")
