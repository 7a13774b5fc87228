"""What a study is: a grid of runs, what is measured of each, and the report over all of them.

The folder of this file is the list of studies: each module with a `StudyConfig` is one (`studies/find.py`).
"""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from diptych.core.config import Config, to_json
from diptych.core.errors import ConfigError
from diptych.core.files import sweep, write_atomic, write_json
from diptych.core.progress import say
from diptych.train.config import RunConfig

Results = dict[str, dict[str, Any]]
"""What was measured, JSON values, by the name of the cell."""


class StudyConfig(Config):
    """Base of every study's settings.

    data   packed datasets; empty: the corpora that the study is about, fetched
    seeds  how often each run is made, with seeds 0, 1, ...
    """

    abstract: ClassVar[bool] = True
    data: tuple[str, ...] = ()
    seeds: int = Field(default=1, ge=1)

    def build(self) -> "Study":
        """The study."""
        raise NotImplementedError


class Cell(NamedTuple):
    """One run of a study; `name` is a word that can name a file."""

    name: str
    run: RunConfig


class Report(NamedTuple):
    """`text` for the terminal, in Markdown; `numbers` for results.json; `files` by name, beside it."""

    text: str
    numbers: dict[str, Any]
    files: dict[str, str]


class Study(ABC):
    """A question that several runs answer together. `summary` is a line about it."""

    summary: ClassVar[str] = ""
    config: StudyConfig

    @abstractmethod
    def plan(self) -> list[Cell]:
        """The runs, in the order in which they are made. Datasets are there afterwards."""

    @abstractmethod
    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Carry the run out in `folder`, or go on with it, and measure it: JSON values."""

    @abstractmethod
    def report(self, results: Results) -> Report:
        """What all cells together say."""

    def run(self, out: Path) -> Report:
        """Measure every cell that was not yet, and write OUT/cells/NAME.json, results.json and the report.

        A study that was stopped goes on with the same command. Raises ConfigError where `out` holds another study.
        """
        self._claim(out)
        cells, results = self.plan(), Results()
        for number, cell in enumerate(cells):
            path = out / "cells" / f"{cell.name}.json"
            if path.is_file():
                say(f"cell {number + 1} of {len(cells)}: {cell.name} is done")
            else:
                say(f"cell {number + 1} of {len(cells)}: {cell.name}")
                write_json(path, self.measure(cell, out / "runs" / cell.name))
            results[cell.name] = _read(path)
        found = self.report(results)
        write_json(out / "results.json", found.numbers)
        write_atomic(out / "report.md", found.text)
        for name, content in found.files.items():
            write_atomic(out / name, content)
        return found

    def _claim(self, out: Path) -> None:
        """Note the settings in `out`, which must be new, or have the same."""
        path, mine = out / "study.json", to_json(self.config)
        sweep(out, path.name)
        if path.is_file() and path.read_text() != mine:
            raise ConfigError(
                f"a study must keep its settings, or have a folder of its own; {out} holds another. Name a new one "
                "with --out, or give the settings back that are in its study.json."
            )
        if not path.is_file() and out.is_dir() and any(out.iterdir()):
            raise ConfigError(f"a study must have a folder of its own; {out} holds something else. Name another.")
        write_atomic(path, mine)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} must hold what was measured; got {error}. Remove it to measure it again.") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold an object; got a {type(found).__name__}. Remove it to measure it again.")
    return found
