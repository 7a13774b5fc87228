"""The curation to begin with drops what is worthless and keeps everything else."""

import numpy as np
import pyarrow.parquet as pq

from diptych.core.record import Record
from diptych.data.curate import curate
from diptych.data.curations.curation import curation
from diptych.data.executors.executor import executor
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from tests.data.pictures import encode, pixels

SAID = {
    "a red dog on the grass": "",
    "ein roter Hund": "",
    "dog": "",
    "Dog 2": "",
    "x": "short_caption",
    "DSC_0001.JPG": "file_name",
    "https://a.b/c": "url",
    "untitled": "stock_phrase",
    "ab$ 1%% !!! --- ***": "special_characters",
    "buy now buy now buy now buy now buy now": "repeated_words",
    "write to jane@example.org": "email",
    "a strip": "narrow_image",
    "nothing at all": "blank",
}


def test_reasons(tmp_path) -> None:
    images = {
        "a strip": pixels(50, 24, 200),
        "nothing at all": np.full((24, 24, 3), 77, np.uint8),
        "dog": np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((20, 20), np.uint8))[..., None].repeat(3, 2),
    }
    made = [
        Record.pair(f"{i:02d}", encode(images.get(t, pixels(i))), "png", (t,), meta={"split": "train"})
        for i, t in enumerate(SAID)
    ]
    pack(FromRecords(lambda: made), tmp_path / "d", PackConfig(tokenizer="none", jobs=1))
    curate(tmp_path / "d", curation("house:default"), tmp_path / "out", executor("pool", 1))
    reasons = pq.read_table(tmp_path / "out" / "table.parquet")["reason"].to_pylist()
    assert dict(zip(SAID, reasons, strict=True)) == SAID
