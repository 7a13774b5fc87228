"""Parquet in its many shapes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.sources.parquet import ParquetConfig
from diptych.data.sources.source import Reject
from tests.data.pictures import png


def read(path: Path, **options: object) -> list[Record | Reject]:
    return list(ParquetConfig(path=str(path), **options).build().records())


def test_bytes_structs_and_paths(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(0))
    columns = {
        "bytes": pa.array([png(0)]),
        "struct": pa.array([{"bytes": png(0), "path": "a.png"}]),
        "lost": pa.array([{"bytes": None, "path": "0.png"}]),
        "path": pa.array(["0.png"]),
        "list": pa.array([[{"bytes": png(0), "path": None}]]),
    }
    for name, column in columns.items():
        pq.write_table(pa.table({name: column, "words": ["a"]}), tmp_path / "t.parquet")
        (record,) = read(tmp_path / "t.parquet", image_column=name, caption_column="words")
        assert isinstance(record, Record), record
        assert record.segments[0].data == png(0)
        assert record.segments[1].texts == ("a",)


def test_class_numbers_become_words(tmp_path: Path) -> None:
    features = {"label": {"names": ["a_cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({"image": [png(0), png(1)], "label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "t.parquet")
    got = read(tmp_path / "t.parquet")
    assert [r.segments[1].texts for r in got if isinstance(r, Record)] == [("dog",), ("a cat",)]
    assert isinstance(got[0], Record)
    assert got[0].meta == {"label": 1}


def test_a_folder_of_splits(tmp_path: Path) -> None:
    for n, name in enumerate(["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"]):
        pq.write_table(pa.table({"image": [png(n)], "caption": ["c"]}), tmp_path / f"{name}.parquet")
    got = read(tmp_path)
    assert [r.meta["split"] for r in got if isinstance(r, Record)] == ["train", "train", "val"]
    (tmp_path / "validation-00000-of-00001.parquet").unlink()
    assert all("split" not in r.meta for r in read(tmp_path) if isinstance(r, Record))


def test_a_damaged_file_among_others_is_named(tmp_path: Path) -> None:
    for n in range(3):
        pq.write_table(pa.table({"image": [png(n)] * 2, "caption": ["c"] * 2}), tmp_path / f"{n}.parquet")
    (tmp_path / "1.parquet").write_bytes(b"PAR1 nothing PAR1")
    got = read(tmp_path)
    assert [i.reason if isinstance(i, Reject) else "" for i in got] == ["", "", "damaged_file", "", ""]
    with pytest.raises(DataError, match="must be a whole parquet file"):
        read(tmp_path / "1.parquet")


def test_columns_are_asked_for(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="got the columns a, b"):
        read(tmp_path / "t.parquet")


def test_where_tells_the_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(0)], "caption": ["c"]}), tmp_path / "t.parquet")
    source = ParquetConfig(path=str(tmp_path / "t.parquet")).build()
    assert source.where("000000001").endswith("t.parquet row 1")
    assert source.count() == 1
