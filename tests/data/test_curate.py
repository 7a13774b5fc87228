"""Curation: kept + dropped = seen, a reason each, the same whoever works and wherever it was killed."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from diptych.core.errors import ConfigError
from diptych.data import curate as module
from diptych.data.candidates import CandidatePool
from diptych.data.curate import CurationConfig, curate
from diptych.data.executors.executor import executor
from diptych.data.filters.caption_length import CaptionLengthConfig
from diptych.data.selection import Selection
from tests.data.curation_pools import packed_pool

CAPTIONS = [["a red dog"], ["dog"], ["one two three four five"], ["a cat"], ["b"], ["a blue dog"], ["mouse"]]
CURATION = CurationConfig(filters=(CaptionLengthConfig(min_words=2), CaptionLengthConfig(max_words=3)))


def test_every_record_is_kept_or_has_its_reason(tmp_path) -> None:
    data = packed_pool(tmp_path / "d", CAPTIONS, per_shard=3)
    report = curate(data, CURATION, tmp_path / "out", executor("pool", 1))
    assert (report.seen, report.kept) == (7, 3)
    assert report.dropped == {("1 caption_length", "short_caption"): 3, ("2 caption_length", "long_caption"): 1}
    table = pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    assert [r["reason"] for r in table] == [
        "",
        "short_caption",
        "long_caption",
        "",
        "short_caption",
        "",
        "short_caption",
    ]
    assert [r["filter"] for r in table] == [-1, 0, 1, -1, 0, -1, 0]
    kept = Selection.load(tmp_path / "out")
    assert kept == Selection.of(r["uid"] for r in table if r["kept"])
    assert not (tmp_path / "out" / "parts").exists()
    about = json.loads((tmp_path / "out" / "curation.json").read_text())
    assert about["pool"]["fingerprint"] == CandidatePool(data).dataset.fingerprint
    assert "Kept 3 of 7" in str(report)


def test_any_number_of_workers_gives_the_same_bytes(tmp_path) -> None:
    data = packed_pool(tmp_path / "d", CAPTIONS, per_shard=2)
    for jobs in (1, 3):
        curate(data, CURATION, tmp_path / f"out{jobs}", executor("pool", jobs))
    for name in ("selection.npy", "table.parquet", "curation.json"):
        assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out3" / name).read_bytes()


def test_what_was_killed_goes_on(tmp_path, monkeypatch) -> None:
    data = packed_pool(tmp_path / "d", CAPTIONS, per_shard=2)
    curate(data, CURATION, tmp_path / "whole", executor("pool", 1))
    written = []
    real = module.write_atomic

    def dies(path, value) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        real(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomic", dies)
        with pytest.raises(KeyboardInterrupt):
            curate(data, CURATION, tmp_path / "killed", executor("pool", 1))
    judged = []
    judge = module._judge
    monkeypatch.setattr(
        module, "_judge", lambda made, path, splits, item: judged.append(1) or judge(made, path, splits, item)
    )
    curate(data, CURATION, tmp_path / "killed", executor("pool", 1))
    assert len(judged) == 8 - 4  # the mark was written first
    for name in ("selection.npy", "table.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_a_kill_leaves_nothing_over(tmp_path) -> None:
    data, out = packed_pool(tmp_path / "d", CAPTIONS), tmp_path / "out"
    out.mkdir()
    (out / ".mark.new-abcd_123").write_text("killed when nothing else was there")
    assert curate(data, CURATION, out, executor("pool", 1)).kept == 3
    for left in ("parts/0", "state/1"):  # killed when all was done but this
        (out / left).mkdir(parents=True)
    (out / ".curation.json.new-abcd_123").write_text("{")
    assert curate(data, CURATION, out, executor("pool", 1)).kept == 3
    assert sorted(os.listdir(out)) == ["curation.json", "mark", "selection.npy", "table.parquet"]


def test_a_folder_of_something_else_is_left_alone(tmp_path) -> None:
    data = packed_pool(tmp_path / "d", CAPTIONS)
    curate(data, CURATION, tmp_path / "out", executor("pool", 1))
    assert curate(data, CURATION, tmp_path / "out", executor("pool", 1)).kept == 3
    with pytest.raises(ConfigError, match="holds something else"):
        curate(data, CurationConfig(filters=(CaptionLengthConfig(),)), tmp_path / "out", executor("pool", 1))
    assert np.load(tmp_path / "out" / "selection.npy").shape == (3,)
