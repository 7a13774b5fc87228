"""The losses that a recipe is known to have on a dataset, kept with it, so that a run that leaves them is told so.

``recipes/curves/<recipe>.json`` holds the dataset's fingerprint, a hash of the recipe's settings, and some points of
its loss with a band. A run of that recipe as it stands, on that data, is compared with it by the doctor.

    python -m diptych.train.reference_curve RUN [RUN ...]     write it from finished runs that differ in their seeds
"""

import argparse
import hashlib
import json
import statistics
import sys
from collections import deque
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from diptych.core.config import flatten, from_json
from diptych.core.errors import ConfigError, DataError, DiptychError
from diptych.core.files import write_json
from diptych.train.config import RunConfig
from diptych.train.doctor import WINDOW, Curve
from diptych.train.resume import is_free

FORMAT = 1
POINTS = 20
FIRST = 0.1
"""Share of the budget before which nothing is compared: there the loss falls fast, and differs most between seeds."""
SPREAD, LEAST = 4.0, 0.03
"""Half the width of the band in sample standard deviations of the runs at a point, and at least so much of the mean:
two runs tell little of the spread, and another machine rounds otherwise."""
ALONE = 0.15
"""Half the width, as a share of the loss, where there is a single run."""
FLOOR = 0.05
"""Then also at least so much of the loss at the first point: near nothing, losses differ by their own size."""


NEWER: dict[str, object] = {"experts": 0, "experts_per_token": 2, "selection": ""}
"""Settings that came after curves had been written, each with the value under which a recipe is what it was before: so
they are left out of the hash, and a new field orphans no curve. Add a field here, not a new curve."""


def settings_hash(config: RunConfig) -> str:
    """16 hex digits of all settings that decide what is learnt, but the seed."""

    def plain(name: str, value: object) -> bool:
        leaf = name.rpartition(".")[2]
        return leaf in NEWER and NEWER[leaf] == value

    settled = {k: v for k, v in flatten(config).items() if not is_free(k) and k != "train.seed"}
    flat = {k: v for k, v in settled.items() if not plain(k, v)}
    return hashlib.sha256(json.dumps(flat, sort_keys=True, default=str).encode()).hexdigest()[:16]


def curve_path(recipe: str) -> Path:
    """Where the curve of a recipe is kept."""
    return Path(str(files("diptych"))) / "recipes" / "curves" / f"{recipe.replace(':', '-').replace('/', '-')}.json"


def find_curve(config: RunConfig, data_fingerprint: str, path: Path | None = None) -> Curve | None:
    """The curve that a run should follow; None where there is none for its recipe, its settings and its data.

    `config` has its batch and decay settled. `path`: another file than the recipe's own.
    """
    path = path or curve_path(config.recipe)
    if not config.recipe or not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text())
        same = kept["data_fingerprint"] == data_fingerprint and kept["settings"] == settings_hash(config)
        points = tuple((int(x), float(y), float(low), float(high)) for x, y, low, high in kept["points"])
        return Curve(points, int(kept["runs"])) if same and kept["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} must be a curve as diptych.train.reference_curve writes it; got {error!r}.") from None


def smoothed(records: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """(samples seen, mean loss of the last `WINDOW` records) of a run's log, as the doctor sees it."""
    recent: deque[float] = deque(maxlen=WINDOW)
    found = []
    for record in records:
        if isinstance(record.get("loss"), (int, float)):
            recent.append(record["loss"])
            if len(recent) == WINDOW:
                found.append((float(record["samples_seen"]), sum(recent) / WINDOW))
    return found


def points_of(runs: list[list[tuple[float, float]]], total: int) -> list[tuple[int, float, float, float]]:
    """(samples seen, expected loss, lowest, highest) at `POINTS` places from the smoothed losses of runs."""
    first = max(FIRST * total, *(run[0][0] for run in runs))
    last = min(run[-1][0] for run in runs)
    found, floor = [], FLOOR * statistics.fmean([_at(run, first) for run in runs])
    for i in range(POINTS):
        x = first + (last - first) * i / (POINTS - 1)
        values = [_at(run, x) for run in runs]
        mean = statistics.fmean(values)
        half = max(ALONE * mean, floor) if len(values) == 1 else max(SPREAD * statistics.stdev(values), LEAST * mean)
        expected, low, high = (float(f"{v:.5g}") for v in (mean, mean - half, mean + half))
        found.append((round(x), expected, low, high))
    return found


def write_curve(folders: list[Path], out: Path | None = None) -> Path:
    """Write the curve of finished runs of one recipe on the same data, and return its path.

    Raises ConfigError where they are not of the same recipe, settings or data, or not at their end.
    """
    if not folders:
        raise ConfigError("a curve must be made of at least one run; got none. Name finished runs.")
    configs, runs, prints = [], [], []
    for folder in folders:
        try:
            config = from_json((folder / "config.json").read_text())
            records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            prints.append(json.loads((folder / "data.json").read_text())["fingerprint"])
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{folder} must be a run's folder; reading it failed with {error!r}.") from None
        losses, total = smoothed(records), config.train.samples_seen
        if len(losses) < 2 or losses[-1][0] < total:
            seen = losses[-1][0] if losses else 0
            raise ConfigError(f"{folder} must be finished ({total:,} samples); its log ends at {seen:,.0f}.")
        configs.append(config)
        runs.append(losses)
    if len({(c.recipe, settings_hash(c)) for c in configs}) > 1 or len(set(prints)) > 1 or not configs[0].recipe:
        raise ConfigError(
            "runs of one curve must have one recipe, the same settings but for the seed, and the same data; got "
            + ", ".join(f"{c.recipe} {settings_hash(c)} on {p}" for c, p in zip(configs, prints, strict=True))
            + ". Leave out those that differ."
        )
    path = out or curve_path(configs[0].recipe)
    kept = {
        "format": FORMAT,
        "recipe": configs[0].recipe,
        "settings": settings_hash(configs[0]),
        "data_fingerprint": prints[0],
        "runs": len(runs),
        "points": points_of(runs, configs[0].train.samples_seen),
    }
    write_json(path, kept)
    return path


def main(arguments: list[str] | None = None) -> None:
    """``python -m diptych.train.reference_curve RUN [RUN ...] [--out FILE]``."""
    parser = argparse.ArgumentParser(description="Write a recipe's reference curve from finished runs.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs that differ in train.seed")
    parser.add_argument("--out", type=Path, help="the file (default: the recipe's own, in the package)")
    given = parser.parse_args(arguments)
    try:
        print(write_curve(given.runs, given.out))
    except DiptychError as error:
        sys.exit(f"reference_curve: {error}")


def _at(run: list[tuple[float, float]], x: float) -> float:
    """The loss at x, on the straight line between the records beside it."""
    for (x0, y0), (x1, y1) in pairwise(run):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / max(x1 - x0, 1e-9)
    return run[-1][1] if x > run[-1][0] else run[0][1]


if __name__ == "__main__":
    main()
