"""Finding an eval by its file's name, and the place where its result is kept."""

import io
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from diptych import evals
from diptych.core.config import from_json, to_json
from diptych.core.errors import DataError, DiptychError
from diptych.core.files import write_atomic
from diptych.core.folder import Folder
from diptych.evals.eval import EvalConfig, EvalResult, ItemTable
from diptych.evals.open_data import split_spec

ITEMS = ".items.npz"
"""What is put in place of .json for the file that holds what each item brought."""


EVALS = Folder(evals, EvalConfig, "a task")


def names() -> tuple[str, ...]:
    """The evals that there are: the files of this folder that hold an EvalConfig."""
    return EVALS.names()


def config_for(name: str, **settings: Any) -> EvalConfig:
    """The settings of the eval called `name`, some of them given."""
    return EVALS.find(name)(**settings)


def result_path(result: EvalResult, run: str | PathLike[str]) -> Path:
    """Where a result is kept: RUN/evals/<task>[-<label>]-<split>.json, whichever part of the run was evaluated.

    A checkpoint's result carries its number; a result on another dataset than the file's, that dataset's name.
    """
    folder, number = run_folder(run)
    label, suffix = result.settings.get("label"), f"-{number}" if number else ""
    task = f"{result.task}-{label}" if label else result.task
    path = folder / "evals" / f"{task}-{result.split}{suffix}.json"
    if path.is_file() and _data_of(path) != result.data:
        path = path.with_name(f"{task}-{Path(split_spec(result.data)[0]).name or 'own'}-{result.split}{suffix}.json")
    return path


def run_folder(run: str | PathLike[str]) -> tuple[Path, str]:
    """The run that a folder belongs to, and the checkpoint's number where it is one of a run's checkpoints."""
    folder = Path(run)
    if folder.parent.name == "checkpoints":
        return folder.parent.parent, folder.name
    if folder.name == "model" and (folder.parent / "config.json").is_file():
        return folder.parent, ""
    return folder, ""


def save(result: EvalResult, run: str | PathLike[str]) -> Path:
    """Write a result where `result_path` says, whole or not at all, and what each item brought beside it."""
    path = result_path(result, run)
    items = path.with_suffix(ITEMS)
    if result.items:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **_arrays(result.items))
        write_atomic(items, buffer.getvalue())
    else:
        items.unlink(missing_ok=True)
    write_atomic(path, to_json(result))
    return path


def read_result(path: str | PathLike[str]) -> EvalResult:
    """The result that `save` wrote, with its items. Raises DataError where there is none."""
    path = Path(path)
    try:
        result = from_json(path.read_text("utf-8"))
        held = np.load(path.with_suffix(ITEMS), allow_pickle=False) if path.with_suffix(ITEMS).is_file() else None
        if not isinstance(result, EvalResult):
            raise ValueError(f"a {type(result).__name__}")
        return result if held is None else result.replace(items=_tables(held))
    except (DiptychError, OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} must be a result as diptych eval writes it; got {error}. Evaluate again.") from None


def results_of(run: str | PathLike[str]) -> list[EvalResult]:
    """Every result that a run holds, in the order of their files' names."""
    folder, number = run_folder(run)
    paths = sorted((folder / "evals").glob(f"*-{number}.json" if number else "*.json"))
    return [read_result(p) for p in paths]


def _arrays(items: dict[str, ItemTable]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for population, table in items.items():
        arrays[f"{population}/keys"] = np.array(table.keys, dtype=np.str_)
        if table.clusters is not None:
            arrays[f"{population}/clusters"] = table.clusters
        arrays |= {f"{population}/values/{k}": v for k, v in table.values.items()}
    return arrays


def _tables(held: Mapping[str, np.ndarray]) -> dict[str, ItemTable]:
    found: dict[str, ItemTable] = {}
    for population in dict.fromkeys(name.split("/")[0] for name in held):
        start = f"{population}/values/"
        found[population] = ItemTable(
            keys=tuple(held[f"{population}/keys"].tolist()),
            clusters=held.get(f"{population}/clusters"),
            values={n.removeprefix(start): held[n] for n in held if n.startswith(start)},
        )
    return found


def _data_of(path: Path) -> str | None:
    try:
        return str(from_json(path.read_text("utf-8")).data)
    except (DiptychError, OSError, UnicodeDecodeError, AttributeError):
        return None
