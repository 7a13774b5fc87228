"""The table of links that collecting leaves behind: what `diptych collect urls` fetches. .jsonl or .parquet."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diptych.core.errors import ConfigError
from diptych.data.hash_set import HashSet
from diptych.data.record_files import printable

LINKS = pa.schema(
    [(name, pa.string()) for name in ("url", "caption", "uid", "rule", "page", "origin", "place", "licence")]
)
"""`uid` is md5(caption + url); `page` the address of the page, `origin` the file that it was read from, `place` where
in it."""
BATCH = 4096


class LinkTable:
    """Writes links once each, beside their place, and puts the table there when it is whole. "" as path: nowhere."""

    def __init__(self, path: str) -> None:
        self.path = Path(path) if path else None
        self.rows = 0
        self._seen = HashSet()
        self._waiting: list[dict[str, str]] = []
        self._writer: Any = None
        if self.path is None:
            return
        if self.path.suffix.lower() not in (".jsonl", ".parquet") or self.path.is_dir():
            raise ConfigError(
                f"links must be a .jsonl or .parquet to be written; got {path}. Name one: links=links.parquet"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._beside = self.path.with_name(f".{self.path.name}.writing")
        self._writer = (
            pq.ParquetWriter(self._beside, LINKS, compression="zstd")
            if self.path.suffix.lower() == ".parquet"
            else open(self._beside, "w", encoding="utf-8")  # noqa: SIM115
        )

    def __enter__(self) -> "LinkTable":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is None:
            return
        if kind is None:
            self._write()
        self._writer.close()
        if kind is None:
            self._beside.replace(self.path)
        else:
            self._beside.unlink(missing_ok=True)

    def add(self, **row: str) -> bool:
        """Write a link; False if one with the same caption was written before."""
        if not self._seen.add(int(row["uid"][:16], 16)):
            return False
        self.rows += 1
        self._waiting.append({name: printable(row.get(name, "")) for name in LINKS.names})
        if len(self._waiting) >= BATCH:
            self._write()
        return True

    def _write(self) -> None:
        if isinstance(self._writer, pq.ParquetWriter):
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=LINKS))
        else:
            self._writer.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self._waiting)
        self._waiting.clear()
