import json

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.data.dataset import Dataset
from diptych.train.doctor import Finding
from diptych.train.run_folder import (
    cut_logs,
    default_folder,
    find_start,
    note_finding,
    note_quarantine,
    open_run,
    quarantined,
)
from tests.train.tiny_run import tiny_config

CPU = torch.device("cpu")


def test_equal_settings_name_an_equal_folder(tmp_path):
    config = tiny_config(tmp_path)
    assert default_folder(config) == default_folder(tiny_config(tmp_path))
    assert default_folder(config) != default_folder(config.replace(train=config.train.replace(seed=1)))
    assert default_folder(config.replace(recipe="clip:tiny")).name.startswith("clip-tiny-")


def test_a_new_run_writes_its_papers_and_a_second_is_refused(data, tmp_path, capsys):
    config, run, dataset = tiny_config(data), tmp_path / "run", Dataset.open(data)
    assert find_start(run, config, False, "f") is None
    assert not run.exists()
    open_run(run, config, None, None, dataset, CPU)
    assert json.loads((run / "env.json").read_text())["data_fingerprint"] == dataset.fingerprint
    assert json.loads((run / "data.json").read_text())["splits"] == {"train": 40, "val": 20}
    with pytest.raises(ConfigError, match="--resume"):
        find_start(run, config, False, "f")
    assert find_start(run, config, True, "f") is None
    assert "no whole checkpoint" in capsys.readouterr().err


def test_findings_and_unreadable_records_are_kept_once(tmp_path, capsys):
    note_finding(tmp_path, Finding("code", "note", "It is so.", "Do this.", 64))
    assert "doctor, at 64 samples: It is so. Do this." in capsys.readouterr().err
    assert json.loads((tmp_path / "doctor.jsonl").read_text())["code"] == "code"
    assert quarantined(tmp_path) == 0
    note_quarantine(tmp_path, {})
    note_quarantine(tmp_path, {"a": "torn"})
    note_quarantine(tmp_path, {"b": "huge", "a": "torn"})
    assert quarantined(tmp_path) == 2
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 2
    with (tmp_path / "quarantine.jsonl").open("a") as file:
        file.write('{"key": "c", "rea')  # torn by a kill
    assert quarantined(tmp_path) == 2
    assert cut_logs(tmp_path, 32, finished=False) == []
    assert (tmp_path / "doctor.jsonl").read_text() == ""
