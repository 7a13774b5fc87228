"""A parquet file that is written a row at a time, some thousand rows at once."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class ParquetRows:
    """Writes rows of `schema` to `path`, `buffer` at once; `close` writes what is left."""

    def __init__(self, path: Path, schema: pa.Schema, buffer: int = 4096) -> None:
        self.schema, self.buffer = schema, buffer
        self.writer = pq.ParquetWriter(path, schema, compression="zstd")
        self.waiting: list[dict[str, Any]] = []
        self.rows = 0

    def add(self, **row: Any) -> None:
        self.waiting.append(row)
        self.rows += 1
        if len(self.waiting) >= self.buffer:
            self._flush()

    def close(self) -> None:
        self._flush()
        self.writer.close()

    def _flush(self) -> None:
        if self.waiting:
            self.writer.write_table(pa.Table.from_pylist(self.waiting, schema=self.schema))
            self.waiting = []
