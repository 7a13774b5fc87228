"""Columns and rows out of Arrow."""

import pyarrow as pa

from diptych.data.arrow_rows import arrow_columns, batch_rows, columns_to_read, features_of

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("scan", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("report", pa.string()),
        ("vector", pa.list_(pa.float32())),
        ("boxes", pa.list_(pa.list_(pa.float64(), 4))),
        ("caption", pa.list_(pa.string())),
    ]
)


def test_the_image_is_found_by_its_type() -> None:
    columns = arrow_columns(SCHEMA, "t", "", "", False)
    assert (columns.image, columns.captions) == ("scan", ("caption",))
    assert arrow_columns(SCHEMA, "t", "", "report", False).captions == ("report",)
    assert columns_to_read(SCHEMA, columns) == ["id", "scan", "report", "boxes", "caption"]


def test_rows_come_whole() -> None:
    batch = pa.RecordBatch.from_pydict({"n": list(range(100))})
    assert [r["n"] for r in batch_rows(batch)] == list(range(100))


def test_features_may_be_missing_or_odd() -> None:
    assert features_of(SCHEMA) is None
    assert features_of(SCHEMA.with_metadata({"huggingface": "not json"})) is None
    assert features_of(SCHEMA.with_metadata({"huggingface": '{"info": {"features": {"a": 1}}}'})) == {"a": 1}
