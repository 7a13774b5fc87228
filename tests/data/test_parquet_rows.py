"""Rows written a few at a time are the rows that are read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diptych.data.parquet_rows import ParquetRows


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 7])
def test_all_rows_in_order(tmp_path: Path, rows: int) -> None:
    table = ParquetRows(tmp_path / "a.parquet", pa.schema([("n", pa.int64()), ("text", pa.string())]), buffer=3)
    for n in range(rows):
        table.add(n=n, text=str(n))
    table.close()
    assert table.rows == rows
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [{"n": n, "text": str(n)} for n in range(rows)]
