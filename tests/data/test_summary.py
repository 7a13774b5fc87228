"""The summary of a dataset against counting by hand."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.decode import decode_image
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords, Reject
from diptych.data.summary import distribution, summarise
from tests.data.pictures import jpg, png


def test_counts(tmp_path: Path) -> None:
    records: list[Record | Reject] = [
        Record.pair(
            f"k{i}", png(i % 25, width=32 + i % 3), "png", (f"a cat {i // 4 if i < 8 else i}", "alt")[: 1 + i % 2]
        )
        for i in range(30)
    ]
    records += [Record.pair("j", jpg(77, height=300, width=400), "jpg", ("a very " + "long " * 50,))]
    records += [Record.pair(f"b{i}", b"", "png", ("x",)) for i in range(7)] + [Reject("u", "a link.", "is_url")]
    pack(
        FromRecords(lambda: records, "mine"),
        tmp_path / "o",
        PackConfig(jobs=1, vocab_size=300, context_length=16, val=0.2),
    )
    got = summarise(Dataset.open(tmp_path / "o"))
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert (got["seen"], got["kept"], got["rejected"], got["source"]) == (39, 31, 8, "mine")
    assert sum(s["records"] for s in got["splits"].values()) == 31
    assert got["images"]["formats"] == {"png": 30, "jpg": 1}
    assert (got["images"]["width"]["min"], got["images"]["width"]["max"]) == (32, 400)
    assert sum(got["images"]["height"]["counts"]) == 31
    captions = got["captions"]
    assert (captions["records"], captions["texts"]) == (31, 46)
    assert captions["alternatives"] == {"1": 16, "2": 15}
    assert captions["top"] == [{"text": "a cat 0", "count": 4}, {"text": "a cat 1", "count": 4}]
    assert captions["duplicate_share"] == pytest.approx(8 / 31)
    assert captions["distinct"] == 25
    assert captions["tokens"]["truncated_share"] == pytest.approx(1 / 46)
    assert captions["tokens"]["max"] == 16
    images = [r.segments[0].data for r in records if isinstance(r, Record) and r.segments[0].data]
    repeated = [d for d in images if images.count(d) > 1]
    assert got["duplicate_images"]["records"] == len(repeated)
    assert [(r["reason"], r["count"], len(r["examples"])) for r in got["rejects"]] == [
        ("empty", 7, 5),
        ("is_url", 1, 1),
    ]
    assert len(got["samples"]) == 12
    shown = decode_image(base64.b64decode(got["samples"][0]["jpeg"]))
    assert max(shown.shape[1:]) <= 192
    assert summarise(Dataset.open(tmp_path / "o")) == got


def test_distributions() -> None:
    assert distribution(np.zeros(0)) is None
    flat = distribution(np.full(5, 3.0))
    assert flat is not None
    assert flat["counts"] == [5]
    for values in (np.arange(1, 1001), np.geomspace(1, 1e6, 1000), np.arange(-5, 5)):
        got = distribution(values)
        assert got is not None
        assert sum(got["counts"]) == len(values)
        assert (got["min"], got["max"]) == (values.min(), values.max())
    wide = distribution(np.geomspace(1, 1e6, 1000))
    assert wide is not None
    assert wide["edges"][1] / wide["edges"][0] == pytest.approx(wide["edges"][-1] / wide["edges"][-2])
