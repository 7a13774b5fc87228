"""What is asked by shard is asked of the model and the data as they lie there now, once a shard."""

from functools import partial

import numpy as np
import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool, write_scores
from diptych.data.executors.executor import executor
from diptych.serve.by_shard import ask_by_shard, opened_anew
from tests.serve.asked import asked


def _lengths(name, pool, rows, model):
    write_scores(pool, name, rows, np.full(len(rows), float(len(model.fingerprint))))


def test_each_shard_is_asked_once(tmp_path) -> None:
    data, embeds, _ = asked(tmp_path)
    pool = CandidatePool(data)
    ask = partial(ask_by_shard, pool, str(embeds), partial(_lengths, "x"), partial(pool.score_path, "x"))
    (data / "scores" / "x").mkdir(parents=True)
    left = data / "scores" / "x" / ".about.json.new-abcd_123"
    left.write_text("{")  # of a process that was killed at its beginning
    folder = ask({"of": "a"}, executor("pool", 1), "asking")
    assert len(list(folder.glob("*.parquet"))) == 3
    assert not left.exists()
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*.parquet")}
    ask({"of": "a"}, executor("pool", 1), "asking")
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*.parquet")} == before
    with pytest.raises(ConfigError, match="another --name"):
        ask({"of": "b"}, executor("pool", 1), "asking")


def test_a_model_that_was_replaced_is_opened_anew(tmp_path) -> None:
    _, embeds, writes = asked(tmp_path)
    first = opened_anew(str(embeds)).fingerprint
    for file in embeds.iterdir():
        file.unlink()
    for file in writes.iterdir():
        (embeds / file.name).write_bytes(file.read_bytes())
    assert opened_anew(str(embeds)).fingerprint != first
