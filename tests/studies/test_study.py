from typing import Any

import pytest

from diptych.core.errors import ConfigError
from diptych.recipes import clip
from diptych.studies.study import Cell, Report, Study, StudyConfig


class CountingConfig(StudyConfig):
    def build(self) -> "Counting":
        return Counting(self)


class Counting(Study):
    """Measures how often it was asked to."""

    def __init__(self, config: CountingConfig) -> None:
        self.config, self.measured = config, []

    def plan(self) -> list[Cell]:
        return [Cell(f"cell-{i}", clip.tiny()) for i in range(self.config.seeds)]

    def measure(self, cell, folder) -> dict[str, Any]:
        self.measured.append(cell.name)
        if cell.name == "cell-2":
            raise KeyboardInterrupt
        return {"name": cell.name, "folder": folder.name}

    def report(self, results) -> Report:
        return Report(f"{len(results)} cells", {"cells": list(results)}, {"picture.svg": "<svg/>"})


def test_a_study_that_was_stopped_goes_on(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".study.json.new-abcd_123").write_text("killed when nothing else was there")
    first = CountingConfig(seeds=4).build()
    with pytest.raises(KeyboardInterrupt):
        first.run(tmp_path / "out")
    again = CountingConfig(seeds=4).build()
    monkeypatch.setattr(Counting, "measure", lambda self, cell, folder: self.measured.append(cell.name) or {"a": 1})
    found = again.run(tmp_path / "out")
    assert again.measured == ["cell-2", "cell-3"]
    assert found.text == "4 cells"
    for name in ("report.md", "results.json", "picture.svg", "study.json", "cells/cell-0.json"):
        assert (tmp_path / "out" / name).is_file()


def test_two_studies_do_not_share_a_folder(tmp_path):
    CountingConfig(seeds=1).build().run(tmp_path / "out")
    with pytest.raises(ConfigError, match="must keep its settings"):
        CountingConfig(seeds=2).build().run(tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="folder of its own"):
        CountingConfig().build().run(tmp_path / "full")
    (tmp_path / "out" / "cells" / "cell-0.json").write_text("{")
    with pytest.raises(ConfigError, match="Remove it to measure it again"):
        CountingConfig(seeds=1).build().run(tmp_path / "out")
