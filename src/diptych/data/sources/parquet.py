"""A parquet file or a folder of them, with images as bytes, as Hugging Face Image structs, or as paths."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.arrow_rows import BATCH_ROWS, arrow_columns, batch_rows, columns_to_read
from diptych.data.rows import records_of_rows, split_of_path
from diptych.data.sources.source import Look, Reject, Source, SourceConfig


def recognises(found: Look) -> bool:
    """Whether this is a parquet file, or a folder with some and no shards or arrow files."""
    if found.is_file:
        return found.suffix == "parquet"
    described = {"metadata.csv", "metadata.jsonl", "dataset.json", "state.json", "dataset_dict.json"} & found.names
    return "parquet" in found.suffixes and not found.suffixes & {"tar", "arrow"} and not described


class ParquetConfig(SourceConfig):
    """Columns are found by their type and their usual names where not given. Relative image paths start at
    `image_root`, else at the file's folder. Files named train-..., test-... or validation-... become splits."""

    path: str
    image_column: str = ""
    caption_column: str = ""
    image_root: str = ""
    merge_rows: bool = True
    images_only: bool = False

    def build(self) -> "Parquet":
        """The source."""
        return Parquet(self)


class Parquet(Source):
    """A record a row, in the order of the files' paths."""

    config: ParquetConfig

    def __init__(self, config: ParquetConfig) -> None:
        self.config = config
        self.images_only = config.images_only
        root = Path(config.path)
        self.root = root if root.is_dir() else root.parent
        self.files = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]

    def records(self) -> Iterator[Record | Reject]:
        """The rows; a file that is damaged is rejected by name, and the next one goes on."""
        splits = {f: split_of_path(f.relative_to(self.root).parts) for f in self.files}
        several = len(set(splits.values())) > 1
        for file in self.files:
            try:
                table = pq.ParquetFile(file)
            except (pa.ArrowException, OSError) as error:
                yield self._damaged(file, error)
                continue
            with table:
                config = self.config
                schema = table.schema_arrow
                columns = arrow_columns(schema, str(file), config.image_column, config.caption_column, self.images_only)
                rows = self._rows(table, file, columns_to_read(schema, columns), splits[file] if several else None)
                root = Path(config.image_root) if config.image_root else file.parent
                yield from records_of_rows(rows, columns, root, self.max_bytes, config.merge_rows)

    def count(self) -> int | None:
        """Rows in all files, as their footers say."""
        try:
            return sum(pq.read_metadata(file).num_rows for file in self.files)
        except (pa.ArrowException, OSError):
            return None

    def where(self, key: str) -> str:
        """The file and its row."""
        file, _, row = key.rpartition("-")
        return f"{self.root / file if file else self.files[0]} row {int(row) if row.isdigit() else row}"

    def _rows(
        self, table: pq.ParquetFile, file: Path, names: list[str], split: str | None
    ) -> Iterator[Reject | tuple[str, str, Mapping[str, Any]]]:
        prefix = f"{file.relative_to(self.root).as_posix()}-" if len(self.files) > 1 else ""
        n = 0
        try:
            for batch in table.iter_batches(BATCH_ROWS, columns=names):
                for row in batch_rows(batch):
                    n += 1
                    marked = row if split is None or row.get("split") else {**row, "split": split}
                    yield f"{prefix}{n:09d}", f"{file} row {n}", marked
        except (pa.ArrowException, OSError) as error:
            yield self._damaged(file, error, after=n)

    def _damaged(self, file: Path, error: Exception, after: int = 0) -> Reject:
        if len(self.files) == 1 and not after:
            raise DataError(f"{file} must be a whole parquet file; got {error}. Copy or download it again.")
        words = f"a parquet file must be whole; this one breaks after row {after} ({error}). Download it again."
        return Reject(f"{file.relative_to(self.root).as_posix()}-rest", words, "damaged_file", str(file))
