"""Two models, or two groups of runs, on what both were evaluated on: a paired test a metric, and a verdict in words."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from diptych.core.config import Config
from diptych.core.errors import ConfigError, EvalError
from diptych.evals.eval import EvalResult
from diptych.evals.find import config_for, results_of
from diptych.evals.paired import SeedsTest, seeds_difference, verdict_words
from diptych.evals.statistics import holm
from diptych.report.terminal import is_share

ALPHA = 0.05
IMMATERIAL = frozenset(
    {*("kind", "data", "split", "label", "batch_size", "chunk", "bootstrap", "pictures", "similarity", "scored_by")}
)
"""Settings that change what a result costs or shows, not what it means; `scored_by` is the model's own matter."""
FACTS = ("class_names", "answer_list", "template_list")
"""What came of the settings and the data, and must be equal too."""
FAMILIES = (
    "Holm's adjustment: over the headline metrics, one a task, for these; over all metrics that are tested, for the "
    "others."
)
ONE_SEED = (
    "One run each: seeds are not accounted for. Another seed of the same recipe may differ as much; give more runs "
    "with --a and --b."
)


class Row(Config):
    """A metric of both sides, a less b, and what the test says. Without items there is no test: `p_value` is None.

    `a`, `b`: means over the side's runs; `n`: independent items; `holm`: the adjusted p-value, over `family`.
    """

    task: str
    data: str
    split: str
    metric: str
    a: float
    b: float
    difference: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    holm: float | None = None
    family: Literal["headline", "all", ""] = ""
    n: int = 0
    verdict: Literal["better", "worse", "indistinguishable", ""] = ""
    words: str = ""


class NotCompared(Config):
    """What one side was evaluated on and cannot be compared, and why."""

    task: str
    why: str


class Comparison(Config):
    """All that can be said of a against b."""

    a: str
    b: str
    runs_a: int
    runs_b: int
    rows: tuple[Row, ...]
    not_compared: tuple[NotCompared, ...] = ()
    notes: tuple[str, ...] = ()


class _What(NamedTuple):
    """What was evaluated: two results of it are about the same items."""

    name: str
    data: str
    split: str


class _Found(NamedTuple):
    """A row before Holm, its test, what its n counts, and which way is better."""

    row: Row
    test: SeedsTest | None
    unit: str
    higher_is_better: bool


class _Shared(NamedTuple):
    """The items of a metric that all runs have."""

    a: Float64[np.ndarray, "k n"]
    b: Float64[np.ndarray, "m n"]
    clusters: Int64[np.ndarray, " n"] | None
    unit: str
    lacking: int


def compare_folders(a: Sequence[str | PathLike[str]], b: Sequence[str | PathLike[str]]) -> Comparison:
    """Runs (or any folders with evals/*.json) of recipe a against those of recipe b, which differ in their seeds."""
    folders = [Path(f).resolve() for f in (*a, *b)]
    twice = [f for f in folders if folders.count(f) > 1]
    if twice:
        raise EvalError(f"compare must be given different runs; got {twice[0]} twice. Name each run once.")
    return compare_results([_read(f) for f in a], [_read(f) for f in b], _name(a), _name(b))


def compare_results(
    a: Sequence[Sequence[EvalResult]], b: Sequence[Sequence[EvalResult]], name_a: str = "a", name_b: str = "b"
) -> Comparison:
    """The results of each run of a against those of each run of b, metric by metric, paired by the items' keys."""
    sides = [[_by_what(run) for run in runs] for runs in (a, b)]
    every = [run for side in sides for run in side]
    found: list[_Found] = []
    left: list[NotCompared] = []
    notes: list[str] = [ONE_SEED] if len(a) == len(b) == 1 else []
    for what in dict.fromkeys(w for run in every for w in run):
        why = _absent(what, sides, (name_a, name_b)) or _other_settings([run[what] for run in every if what in run])
        if why and not (what in sides[1][0] and any(n.task == what.name for n in left)):  # said of a's already
            left.append(NotCompared(task=what.name, why=why))
        if why:
            continue
        results = [[run[what] for run in side] for side in sides]
        tested, more = _rows(what, results[0], results[1])
        found += tested
        notes += more
    rows = _judged(found)
    if any(row.holm is not None for row in rows):
        notes.append(FAMILIES)
    return Comparison(
        a=name_a,
        b=name_b,
        runs_a=len(a),
        runs_b=len(b),
        rows=tuple(rows),
        not_compared=tuple({(n.task, n.why): n for n in left}.values()),
        notes=tuple(dict.fromkeys(notes)),
    )


def _rows(what: _What, a: Sequence[EvalResult], b: Sequence[EvalResult]) -> tuple[list[_Found], list[str]]:
    """A row for each metric that every run has, its test, and the unit that its n counts."""
    found: list[_Found] = []
    notes = []
    ways = sorted({str(r.settings["scored_by"]) for r in (*a, *b) if r.settings.get("scored_by")} - {"auto"})
    if len(ways) > 1:
        notes.append(f"{what.name}: the models score pairs in different ways ({', '.join(ways)}).")
    headline = _headline(a[0])
    for metric, estimate in a[0].metrics.items():
        if not all(metric in r.metrics for r in (*a, *b)):
            continue
        means = [float(np.mean([r.metrics[metric].value for r in side])) for side in (a, b)]
        shared = _shared(metric, a, b)
        test = None
        if shared is not None and shared.a.shape[1]:
            test = seeds_difference(shared.a, shared.b, shared.clusters)
            if shared.lacking:
                notes.append(
                    f"{what.name}: {shared.lacking:,} item(s) that not every run has are left out of the test."
                )
        row = Row(
            task=what.name,
            data=what.data,
            split=what.split,
            metric=metric,
            a=means[0],
            b=means[1],
            difference=means[0] - means[1] if test is None else test.difference,
            low=None if test is None else test.low,
            high=None if test is None else test.high,
            p_value=None if test is None else test.p_value,
            family="" if test is None else "headline" if metric == headline else "all",
            n=estimate.n if test is None else test.n,
            words=_untested(shared, means) if test is None else "",
        )
        found.append(_Found(row, test, "" if shared is None else shared.unit, estimate.higher_is_better))
    return found, notes


def _judged(found: Sequence[_Found]) -> list[Row]:
    """The rows with Holm's p-values, over the headlines and over all, and the verdicts that these allow."""
    p_values = {str(i): one.test.p_value for i, one in enumerate(found) if one.test is not None}
    heads = {i: p for i, p in p_values.items() if found[int(i)].row.family == "headline"}
    adjusted = {**holm(p_values), **holm(heads)}
    rows = []
    for i, (row, test, unit, higher) in enumerate(found):
        if test is not None:
            p = adjusted[str(i)]
            words = verdict_words(test, unit, is_share(row.metric), higher, p, ALPHA)
            row = row.replace(holm=p, verdict=test.verdict(ALPHA, higher, p), words=words)
        rows.append(row)
    return rows


def _untested(shared: _Shared | None, means: Sequence[float]) -> str:
    if means[0] == means[1]:
        return "equal"
    return "no test: no mean over items" if shared is None else "no test: no items in common"


def _shared(metric: str, a: Sequence[EvalResult], b: Sequence[EvalResult]) -> _Shared | None:
    """What each run's items brought to a metric, in one order; None where some run holds no items of it."""
    tables = []
    for result in (*a, *b):
        held = [(name, table) for name, table in result.items.items() if metric in table.values]
        if not held:
            return None
        tables.append(held[0])
    name, first = tables[0]
    keys = first.keys
    if any(table.keys != keys for _, table in tables):
        common = set(keys).intersection(*(table.keys for _, table in tables))
        keys = tuple(k for k in keys if k in common)
    values = []
    for _, table in tables:
        place = {k: i for i, k in enumerate(table.keys)}
        values.append(np.array([table.values[metric][place[k]] for k in keys], dtype=np.float64))
    place = {k: i for i, k in enumerate(first.keys)}
    clusters = None if first.clusters is None else first.clusters[[place[k] for k in keys]]
    unit = name
    if clusters is not None and len(np.unique(clusters)) < len(keys):
        unit = "independent captions" if name == "captions" else "images"
    lacking = max(len(table.keys) for _, table in tables) - len(keys)
    split = len(a)
    return _Shared(np.array(values[:split]), np.array(values[split:]), clusters, unit, lacking)


def _by_what(run: Sequence[EvalResult]) -> dict[_What, EvalResult]:
    """A run's results; of a run and its checkpoints, the one that has seen most (a model's own: last)."""
    found: dict[_What, EvalResult] = {}
    for result in run:
        label = result.settings.get("label")
        data = str(Path(result.data).resolve()) if result.data and Path(result.data).exists() else result.data
        what = _What(f"{result.task}-{label}" if label else result.task, data, result.split)
        if what not in found or _seen(result) >= _seen(found[what]):
            found[what] = result
    return found


def _seen(result: EvalResult) -> float:
    return float("inf") if result.samples_seen is None else float(result.samples_seen)


def _absent(what: _What, sides: Sequence[Sequence[Mapping[_What, EvalResult]]], names: Sequence[str]) -> str:
    """Why not every run was evaluated on this: "" if each was."""
    for side, name in zip(sides, names, strict=True):
        for run in side:
            if what in run:
                continue
            others = [w for w in run if w.name == what.name]
            if not others:
                return f"{name} was not evaluated on it"
            mine, its = (w.data or "its own data" for w in (what, others[0]))
            if mine != its:
                return f"evaluated on different data: {mine}, and {name} on {its}"
            return f"evaluated on different splits: {what.split}, and {name} on {others[0].split}"
    return ""


def _other_settings(results: Sequence[EvalResult]) -> str:
    """Which settings differ so that the numbers mean different things; "" if none."""
    first = results[0]
    names = [n for n in (*_fields(first), *FACTS) if n not in IMMATERIAL]
    for other in results[1:]:
        for name in names:
            both = name in first.settings and name in other.settings
            if both and _plain(first.settings[name]) != _plain(other.settings[name]):
                x, y = (str(r.settings[name]) for r in (first, other))
                shown = f": {x} and {y}" if len(x) + len(y) < 80 else ""
                return f"evaluated with different settings, {name}{shown}"
    return ""


def _fields(result: EvalResult) -> tuple[str, ...]:
    try:
        return tuple(type(config_for(result.task)).model_fields)
    except ConfigError:  # an eval that this version does not have
        return tuple(result.settings)


def _headline(result: EvalResult) -> str:
    try:
        return config_for(result.task).build().headline
    except ConfigError:
        return next(iter(result.metrics), "")


def _plain(value: Any) -> Any:
    """A setting as JSON gives it back."""
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _read(folder: str | PathLike[str]) -> list[EvalResult]:
    if not Path(folder).is_dir():
        raise EvalError(
            f"a run must be a folder; got {folder}, which is none. Name the folder that pretrain or eval named."
        )
    results = results_of(folder)
    if not results:
        raise EvalError(
            f"compare must be given runs that were evaluated; got {folder} without results (evals/*.json). Evaluate "
            "both on the same data first: diptych eval A B --suite quick --data DIR"
        )
    return results


def _name(folders: Sequence[str | PathLike[str]]) -> str:
    first = Path(folders[0])
    return first.name if len(folders) == 1 else f"{first.name} and {len(folders) - 1} more"
