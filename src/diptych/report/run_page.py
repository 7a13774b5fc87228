"""The report of a run: reads the run's folder (JSON files only) and returns one self-contained HTML page."""

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from diptych.core.errors import DataError
from diptych.report import grids, plots
from diptych.report.confusion import confusion_section
from diptych.report.figures import figure_html
from diptych.report.page import Page, card, cards, columns, details, note, settings_table, table
from diptych.report.plots import Series, Whisker, line_chart
from diptych.report.terminal import is_share, shown
from diptych.report.written import written_section

Json = dict[str, Any]


def run_page(run: str | Path) -> str:
    """The page of the run in folder `run`. Raises DataError where there is no run."""
    run = Path(run)
    config = read_object(run / "config.json")
    if config is None:
        raise DataError(f"a run must be a folder with a config.json; got {run}. Give the folder that pretrain named.")
    if not {"recipe", "train"} & set(config):
        raise DataError(f"a run must be the folder that pretrain named; got {run}, which holds a model alone.")
    metrics = _lines(run / "metrics.jsonl")
    doctor = _lines(run / "doctor.jsonl")
    results = [r for p in sorted((run / "evals").glob("*.json")) if (r := read_object(p)) is not None]
    env = read_object(run / "env.json") or {}
    dataset = read_object(run / "data.json") or {}
    recipe = config.get("recipe") or run.name
    page = Page(
        f"{recipe}",
        f"{escape(run.name)} &middot; {escape(_budget(metrics))} &middot; {escape(str(dataset.get('path', '')))}",
    )
    page.section("At a glance", headlines(results, metrics))
    page.section("The doctor", *(_note(f) for f in doctor))
    if not doctor:
        page.section("The doctor", note("Nothing to complain of.", "The doctor reads every logged number of the run."))
    for stage in config.get("before", []):
        home = run / "stages" / stage["stage"]
        notes = (_note(f) for f in _lines(home / "doctor.jsonl"))
        page.section(f"Stage: {stage['stage']}", *notes, _curves(_lines(home / "metrics.jsonl")))
    page.section("Curves", _curves(metrics))
    for result in results:
        label = (result.get("settings") or {}).get("label")
        name = words(result["task"]) + (f" ({label})" if label else "")
        page.section(f"{name}: {result.get('split', '')}", *result_section(result))
    page.section("Data", _data(dataset))
    page.section("Settings", _settings(config, read_object(run / "recipe.json")))
    page.section("Machine and versions", table([(k, _flat(v)) for k, v in env.items()]))
    return page.render()


def headlines(results: list[Json], metrics: list[Json], each: int = 3) -> str:
    """The first metrics of each result, and the last words of a log, in boxes."""
    boxes = []
    for result in results:
        for name in _first(result["metrics"], each):
            m = result["metrics"][name]
            share = is_share(name)
            level = "" if m.get("chance") is None else f", chance {shown(m['chance'], share, 2)}"
            detail = f"{shown(m['low'], share)} to {shown(m['high'], share)}{level}"
            task = f"{words(result['task'])}: " if each == 1 else ""
            boxes.append(card(f"{task}{words(name)} ({result['split']})", shown(m["value"], share), detail, _tone(m)))
    trained = [m for m in metrics if "loss" in m]
    if trained:
        last = trained[-1]
        boxes.append(card("samples seen", f"{last.get('samples_seen', 0):,}", f"epoch {last.get('epoch', 0):.1f}"))
        chance = last.get("chance_loss")
        boxes.append(card("training loss", f"{last['loss']:.3f}", "" if chance is None else f"chance {chance:.3f}"))
        rate = last.get("samples_per_s")
        if rate:
            boxes.append(card("rate", f"{rate:,.0f}/s", f"{last.get('data_wait', 0):.0%} of the time waiting for data"))
    return cards(*boxes)


def _curves(metrics: list[Json]) -> str:
    def line(key: str, name: str = "") -> Series:
        rows = [m for m in metrics if isinstance(m.get(key), (int, float))]
        return Series(name or key, [m["samples_seen"] for m in rows], [m[key] for m in rows])

    trained = [m for m in metrics if "loss" in m]
    if not trained:
        return ""
    chance = trained[-1].get("chance_loss")
    references = [("chance", chance)] if isinstance(chance, (int, float)) else []
    charts = [line_chart([line("loss", "train"), line("val_loss", "validation")], "loss", references=references)]
    charts += _held_out(metrics)
    wanted: list[tuple[list[Series], str, bool]] = [
        ([line("lr", "learning rate")], "learning rate", False),
        ([line("grad_norm", "gradient norm")], "gradient norm", True),
        ([line("logit_scale", "logit scale")], "logit scale", False),
        ([line("sight", "sight")], "sight, nats a token", False),
        ([line("positive_cosine", "pairs"), line("negative_cosine", "others")], "cosine", False),
        ([line("samples_per_s", "samples/s")], "samples per second", False),
        ([line("data_wait", "waiting for data"), line("duplicate_captions", "repeated captions")], "share", False),
        ([line("memory_mb", "memory")], "memory, MB", False),
        ([line("experts_busiest", "busiest"), line("experts_idlest", "idlest")], "experts, of an even share", False),
    ]
    for series, label, log in wanted:
        logged = [s for s in series if len(s.x)]
        if logged:
            charts.append(line_chart(logged, label, log_y=log))
    charts += [line_chart([line(key, words(key))], words(key)) for key in _others(trained)]
    return columns(*charts)


_KNOWN = (
    *("samples_seen", "step", "epoch", "loss", "chance_loss", "lr", "grad_norm", "logit_scale", "sight", "memory_mb"),
    *("positive_cosine", "negative_cosine", "samples_per_s", "data_wait", "duplicate_captions"),
    *("experts_busiest", "experts_idlest", "nonfinite_steps", "quarantined", "truncated"),
)
"""What has a chart with others, or only counts; of troubles the doctor speaks."""


def _others(trained: list[Json]) -> list[str]:
    """Whatever else a run logs as it trains, in its order: the parts of its loss, how it is with its codebook or its
    experts. What never changes is no curve."""
    keys = [k for k in dict.fromkeys(k for m in trained for k in m) if k not in _KNOWN]
    values = {k: {m[k] for m in trained if isinstance(m.get(k), (int, float))} for k in keys}
    return [k for k in keys if len(values[k]) > 1]


def _held_out(metrics: list[Json]) -> list[str]:
    """One chart an eval and split: the shares that were measured while the model trained."""
    found: dict[str, list[Json]] = {}
    for record in metrics:
        if record.get("kind") == "eval":
            found.setdefault(f"{words(record.get('task', ''))}, {record.get('split', '')}", []).append(record)
    charts = []
    for name, records in found.items():
        keys = [k for k in records[-1] if is_share(k)][:6]
        seen = [r["samples_seen"] for r in records]
        lines = [Series(words(k), seen, [r.get(k, float("nan")) for r in records]) for k in keys]
        if len(records) > 1 and lines:
            charts.append(line_chart(lines, name))
    return charts


def result_section(result: Json) -> list[str]:
    """What a page shows of a result: where it is from, its numbers, its figures, its settings."""
    where = escape(f"{result.get('data', '')} ({result.get('split', '')})")
    lead = f"{where}. Dots are estimates, bars their 95 % intervals over independent items, red ticks chance."
    return [f'<p class="lead">{lead}</p>', _result(result)]


def _result(result: Json) -> str:
    parts = [_estimates(result["metrics"])]
    artifacts = result.get("artifacts", {})
    for key, draw in _ARTIFACTS:
        if artifacts.get(key):
            parts.append(draw(artifacts[key], result))
    if result["task"] == "zero_shot":
        parts.append(confusion_section(artifacts))
    parts.append(written_section(artifacts))
    parts += [figure_html(figure) for figure in result.get("figures", ())]
    parts.append(details("Settings of this eval", settings_table(result.get("settings", {}))))
    return "".join(parts)


def _estimates(metrics: Json) -> str:
    shares = [
        Whisker(words(k), m["value"], m["low"], m["high"], m.get("chance"), m.get("n", 0))
        for k, m in metrics.items()
        if is_share(k)
    ]
    if not shares:
        return _numbers(metrics)
    others = {k: m for k, m in metrics.items() if not is_share(k)}
    return _numbers(others) + plots.interval_chart(shares) + details("As a table", _numbers(metrics))


def _numbers(metrics: Json) -> str:
    rows = [
        (
            words(k),
            shown(m["value"], is_share(k)),
            f"{shown(m['low'], is_share(k))} to {shown(m['high'], is_share(k))}",
            "-" if m.get("chance") is None else shown(m["chance"], is_share(k), 2),
            f"{m.get('n', 0):,}",
        )
        for k, m in metrics.items()
    ]
    return table(rows, ("metric", "value", "95 % interval", "chance", "n"), numeric=(1, 2, 3, 4))


def _similarity(value: Json, result: Json) -> str:
    captions = value.get("captions", [])
    listing = ", ".join(f"{i}: {c}" for i, c in enumerate(captions))
    text = (
        "<p class='lead'>Rows are images, columns captions, in the same order: a good model lights up the diagonal.</p>"
    )
    words = details("The captions, in order", f"<p>{escape(listing)}</p>")
    return f"<h3>Similarity of {len(captions)} pairs</h3>{text}{plots.heatmap(value['matrix'])}{words}"


def _ranks(value: Json, result: Json) -> str:
    return "<h3>Where the right answer stood</h3>" + columns(
        *(
            plots.histogram(h["bins"], h["counts"], f"rank, {words(name)}")
            for name, h in value.items()
            if isinstance(h, dict) and "bins" in h
        )
    )


def _grid(title: str, draw: Callable[[Any], str], shown: int = 8) -> Callable[[Any, Json], str]:
    def whole(value: Any, result: Json) -> str:
        more = details(f"{len(value) - shown} more", draw(value[shown:])) if len(value) > shown else ""
        return f"<h3>{title}</h3>{draw(value[:shown])}{more}"

    return whole


_ARTIFACTS: list[tuple[str, Callable[[Any, Json], str]]] = [
    ("similarity", _similarity),
    ("rank_histogram", _ranks),
    ("t2i_best", _grid("Words to image: the surest", grids.text_to_image)),
    ("t2i_worst", _grid("Words to image: the worst", grids.text_to_image)),
    ("i2t_best", _grid("Image to words: the surest", grids.image_to_text)),
    ("i2t_worst", _grid("Image to words: the worst", grids.image_to_text)),
]


def _data(dataset: Json) -> str:
    if not dataset:
        return ""
    facts = {k: v for k, v in dataset.items() if not isinstance(v, (dict, list))}
    splits = [(k, f"{v:,}" if isinstance(v, int) else _flat(v)) for k, v in dataset.get("splits", {}).items()]
    rejects = [(k, f"{v:,}") for k, v in dataset.get("rejected", {}).items()]
    return columns(
        table(splits, ("split", "records"), numeric=(1,)),
        table(rejects, ("rejected because", "records"), numeric=(1,)) or "<p class='empty'>No record was rejected.</p>",
    ) + table([(words(k), _flat(v)) for k, v in facts.items()])


def _settings(config: Json, recipe: Json | None) -> str:
    flat = _leaves(config)
    before = _leaves(recipe) if recipe else flat
    changed = {k: f"{v} (recipe: {before.get(k, '-')})" for k, v in flat.items() if before.get(k) != v}
    head = f"<h3>Changed from the recipe</h3>{settings_table(changed)}" if changed else ""
    return head + details("The whole config", settings_table(flat))


def _note(finding: Json) -> str:
    when = f"at {finding.get('samples_seen', 0):,} samples"
    return note(finding.get("message", ""), finding.get("advice", ""), finding.get("severity", "note"), when)


def _tone(m: Json) -> str:
    if m.get("chance") is None:
        return ""
    better = m["low"] > m["chance"] if m.get("higher_is_better", True) else m["high"] < m["chance"]
    return "good" if better else "bad"


def _first(metrics: Json, n: int) -> list[str]:
    """Those that come first, and of an eval that leads with a share, its first shares."""
    names = list(metrics)
    return [k for k in names if is_share(k) or not is_share(names[0])][:n]


def _budget(metrics: list[Json]) -> str:
    seen = max((m.get("samples_seen", 0) for m in metrics), default=0)
    return f"{seen:,} samples seen"


_PLAIN = {"i2t": "image to words", "t2i": "words to image", "acc": "accuracy"} | {
    w.lower(): w for w in ("CIDEr", "BLEU", "VQA")
}


def words(name: str) -> str:
    """A metric's or a task's name as a person reads it."""
    return " ".join(_PLAIN.get(w, w) for w in str(name).replace("recall_at_", "R@").split("_"))


def _leaves(value: Any, prefix: str = "") -> Json:
    if isinstance(value, dict):
        found: Json = {}
        for k, v in value.items():
            found |= _leaves(v, f"{prefix}.{k}" if prefix else k)
        return found
    return {prefix: value}


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(v) for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def read_object(path: Path) -> Json | None:
    """A JSON object from a file; None where there is none. Raises DataError where the file is damaged."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be readable JSON; got {error}. Restore it, or run that step again.") from None
    return value if isinstance(value, dict) else None


def _lines(path: Path) -> list[Json]:
    """The lines of a JSONL file; a last line that a kill cut short is left out."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    rows = []
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
