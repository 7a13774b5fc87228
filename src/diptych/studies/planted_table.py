"""The report over planted faults: what is found of each, precision and recall with intervals, and chance beside."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diptych.evals.intervals import wilson
from diptych.evals.paired import seeds_difference
from diptych.evals.statistics import holm, score_interval
from diptych.studies.planted_filters import AIMS, ALL, PAIRS, guessed
from diptych.studies.planted_scores import area

Cells = Sequence[dict[str, Any]]
RANKS = (1, 5, 10)
TITLES = {
    "mismatched": "mismatched captions",
    "exact_copy": "exact copies",
    "near_copy": "near copies",
    "boilerplate": "boilerplate captions",
    "leaked": "leaked test pictures",
}


def estimates(tallies: Cells, aims: Sequence[str]) -> dict[str, Any]:
    """Recall and precision of a filter for the faults `aims` together, [value, low, high], with what guessing reaches;
    means over `tallies` (models), Wilson's intervals over records."""
    first = tallies[0]
    faults = [f for f in aims if f in first["found"]]
    wanted = sum(first["found"][f][1] for f in faults)
    hits = float(np.mean([sum(t["found"][f][0] for f in faults) for t in tallies]))
    dropped = float(np.mean([t["dropped"] for t in tallies]))
    by_lot = sum(guessed(dropped, first["seen"], f) * first["found"][f][1] for f in faults)
    return {
        "wanted": wanted,
        "dropped": dropped,
        "recall": _share(hits, wanted),
        "recall_guessing": by_lot / wanted if wanted else None,
        "precision": _share(hits, dropped),
        "precision_guessing": by_lot / dropped if dropped else None,
    }


def filter_numbers(by_filter: dict[str, Cells]) -> dict[str, Any]:
    """Of each filter: what it drops, and estimates for its aim, for each fault, and by how a fault was made."""
    found = {}
    for name, tallies in by_filter.items():
        first = tallies[0]
        lost = float(np.mean([t["lost"][0] for t in tallies]))
        found[name] = {
            "dropped": [float(np.mean([t["dropped"] for t in tallies])), first["seen"]],
            "clean_lost": _share(lost, first["lost"][1]),
            "aim": estimates(tallies, AIMS[name]),
            "faults": {fault: estimates(tallies, (fault,)) for fault in first["found"]},
            "ways": {
                way: [n, *_share(float(np.mean([t["ways"][way][0] for t in tallies])), n)]
                for way, (_, n) in first["ways"].items()
            },
            "clean_dropped": first["examples"],
        }
    return found


def filter_lines(numbers: dict[str, Any]) -> list[str]:
    """The tables of what filters find."""
    names = list(numbers)
    faults = list(numbers[names[0]]["faults"])
    seen = numbers[names[0]]["dropped"][1]
    lines = [
        "### What is found of each fault",
        "",
        f"The share that each filter finds of the faults planted in a pool of {seen:,}; in bold what it is for. A copy "
        "and its original are one pair, found where one of them is dropped.",
        "",
        "| fault | records | of the pool | " + " | ".join(names) + " |",
        "|---" * (3 + len(names)) + "|",
    ]
    for fault in faults:
        cells = [_percent(numbers[n]["faults"][fault]["recall"][0], fault in AIMS[n]) for n in names]
        wanted = numbers[names[0]]["faults"][fault]["wanted"]
        lines.append(f"| {TITLES[fault]} | {wanted:,} | {wanted / seen:.1%} | " + " | ".join(cells) + " |")
    shares = [numbers[n]["dropped"][0] / seen for n in names]
    lines.append("| dropped of the pool, which guessing finds of a fault | | | " + _row(f"{s:.1%}" for s in shares))
    pairs = [guessed(numbers[n]["dropped"][0], seen, PAIRS[0]) for n in names]
    lines.append("| guessing finds of pairs | | | " + _row(f"{s:.1%}" for s in pairs))
    lines.append("| clean records dropped | | | " + _row(f"{numbers[n]['clean_lost'][0]:.1%}" for n in names))
    return [*lines, "", *_aim_lines(numbers), "", *_way_lines(numbers)]


def score_numbers(cells: Cells) -> list[dict[str, Any]]:
    """By length of training: the areas under the ROC curve, mismatched and boilerplate captions against clean records,
    and precision and recall of the filter for mismatched ones."""
    found = []
    for length in sorted({c["samples_seen"] for c in cells}):
        mine = [c for c in cells if c["samples_seen"] == length]
        row: dict[str, Any] = {"samples_seen": length}
        for fault in ("mismatched", "boilerplate"):
            if len(mine[0]["scores"].get(fault, ())) > 1:
                row[fault] = area([c["scores"]["clean"] for c in mine], [c["scores"][fault] for c in mine])._asdict()
        row["filter"] = estimates([c["filters"]["score"] for c in mine], AIMS["score"])
        found.append(row)
    return found


def score_lines(rows: list[dict[str, Any]], keep: float) -> list[str]:
    """The table of how well a model that was trained on the pool scores its pairs."""
    lines = [
        "### Mismatched captions by the score of a CLIP trained on this pool",
        "",
        f"Area: the chance that a clean pair scores above a faulty one. Recall and precision where the best {keep:.0%} "
        "stay.",
        "",
        "| samples seen | area, mismatched | area, boilerplate | recall of mismatched | precision |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        areas = [
            _said([row[f]["value"], row[f]["low"], row[f]["high"]]) if f in row else ""
            for f in ("mismatched", "boilerplate")
        ]
        found = row["filter"]
        cells = [f"{row['samples_seen']:,}", *areas, _said(found["recall"]), _said(found["precision"])]
        lines.append("| " + " | ".join(cells) + " |")
    last = rows[-1]["filter"]
    chance = [last["recall_guessing"], last["precision_guessing"]]
    return [*lines, "| guessing | 50.0% | 50.0% | " + _row(f"{c:.1%}" if c is not None else "" for c in chance)]


def balance_lines(found: dict[str, Any]) -> list[str]:
    """The table of what balancing does to rare concepts."""
    lines = [
        "### Balanced sampling",
        "",
        f"{found['concepts']:,} concepts in {found['records']:,} records, of which {found['tail_concepts']:,} are of "
        f"the tail (at most t = {found['t']} records each). {found['kept']:,.0f} records stay; means over "
        f"{found['draws']} seeds, the interval of the difference over seeds.",
        "",
        "| | whole pool | balanced | random, as many | balanced less random |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["measures"].items():
        share = name.endswith("records")
        title = {"tail records": "records with a concept of the tail", "head records": "records with one of the head"}
        said = title.get(name, "effective number of concepts" if name == "evenness" else f"concepts with {name}")
        values = [_number(row[k], share) for k in ("pool", "balanced", "random")]
        ends = ", ".join(_number(row[k], share, True) for k in ("low", "high"))
        lines.append(f"| {said} | " + _row([*values, f"{_number(row['difference'], share, True)} [{ends}]"]))
    return lines


def trained_numbers(cells: Cells) -> dict[str, Any]:
    """Balanced against random: text-to-image recall of all held-out items, and of those with a rare and with only
    common concepts; the differences are paired by item (of several seeds these count as a sample too), their p-values
    adjusted for all rows (Holm)."""
    of = {name: [c for c in cells if c["set"] == name] for name in ("balanced", "random")}
    kinds = np.array(of["balanced"][0]["kinds"])
    rows: dict[str, Any] = {}
    for group in ("all", "tail", "head"):
        inside = np.ones(len(kinds), bool) if group == "all" else kinds == group
        for most in RANKS if inside.any() else ():
            hits = {n: np.array([c["ranks"] for c in some])[:, inside] <= most for n, some in of.items()}
            test = seeds_difference(hits["balanced"].astype(float), hits["random"].astype(float))
            means = {n: h.mean(0) for n, h in hits.items()}
            rows[f"{group} R@{most}"] = {
                "items": int(inside.sum()),
                "chance": min(1.0, most / len(kinds)),
                **{n: [float(h.mean()), *score_interval(h)] for n, h in means.items()},
                "difference": [test.difference, test.low, test.high],
                "p_value": test.p_value,
            }
    adjusted = holm({name: row["p_value"] for name, row in rows.items()})
    for name, row in rows.items():
        row["p_adjusted"] = adjusted[name]
    about: dict[str, Any] = {k: of["balanced"][0][k] for k in ("samples_seen", "records")}
    about["faulty"] = {name: float(np.mean([c["faulty"] for c in some])) for name, some in of.items()}
    return about | {"seeds": len(of["random"]), "rows": rows}


def trained_lines(found: dict[str, Any]) -> list[str]:
    """The table of models trained on balanced and on random sets."""
    over = "items and seeds" if found["seeds"] > 1 else "items of one seed: not what another seed would have learned"
    lines = [
        "### Trained on the balanced and on a random set",
        "",
        f"clip:tiny on {found['records']:,} records each, {found['samples_seen']:,} samples seen, {found['seeds']} "
        "seed(s): which held-out picture a caption means, among all of them. Tail: captions with a concept of the "
        f"tail; head: with those of the head alone. Of the balanced set {found['faulty']['balanced']:.1%}, of the "
        f"random one {found['faulty']['random']:.1%} have a mismatched or boilerplate caption. "
        f"Intervals of differences are over {over}.",
        "",
        "| | items | balanced | random | guessing | balanced less random | p (Holm) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        value, low, high = row["difference"]
        cells = [f"{row['items']:,}", _said(row["balanced"]), _said(row["random"]), f"{row['chance']:.1%}"]
        cells += [f"{value:+.1%} [{low:+.1%}, {high:+.1%}]", f"{row['p_adjusted']:.2g}"]
        lines.append(f"| {name} | " + _row(cells))
    return lines


def _aim_lines(numbers: dict[str, Any]) -> list[str]:
    lines = [
        "### Each filter on what it is for",
        "",
        "| filter | for | recall | guessing | precision | guessing | dropped | clean records dropped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in numbers.items():
        aim, aims = row["aim"], "every fault" if name == ALL else ", ".join(TITLES[f] for f in AIMS[name])
        chance = [_percent(aim[f"{k}_guessing"]) for k in ("recall", "precision")]
        cells = [aims, _said(aim["recall"]), chance[0], _said(aim["precision"]), chance[1], f"{aim['dropped']:,.0f}"]
        lines.append(f"| {name} | " + _row([*cells, _said(row["clean_lost"])]))
    return lines


def _way_lines(numbers: dict[str, Any]) -> list[str]:
    lines = ["### By how a fault was made", "", "| fault | how | records | found by | share |", "|---|---|---|---|---|"]
    ways = next(iter(numbers.values()))["ways"]
    for way in ways:
        fault, _, how = way.partition(": ")
        for name in (n for n, aims in AIMS.items() if fault in aims and n in numbers and n != ALL):
            n, *found = numbers[name]["ways"][way]
            lines.append(f"| {TITLES[fault]} | {how} | " + _row([f"{n:,}", name, _said(found)]))
    return lines


def _share(hits: float, of: float | int) -> list[float]:
    """[value, low, high]; [] of nothing."""
    return [hits / of, *wilson(hits, of)] if of >= 1 else []


def _said(found: Sequence[float]) -> str:
    return f"{found[0]:.1%} [{found[1]:.1%}, {found[2]:.1%}]" if found else "nothing dropped"


def _percent(value: float | None, bold: bool = False) -> str:
    said = "" if value is None else f"{value:.1%}"
    return f"**{said}**" if bold else said


def _number(value: float, share: bool, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{value:{sign}.1%}" if share else f"{value:{sign},.1f}"


def _row(cells: Any) -> str:
    return " | ".join(cells) + " |"
