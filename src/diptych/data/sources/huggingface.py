"""A Hugging Face dataset that `save_to_disk` wrote (one, or a dictionary of splits), read as arrow: nothing is decoded,
nothing of it is executed, and the `datasets` package is not needed. Folders of parquet are `parquet.py`'s."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.arrow_rows import arrow_columns, batch_rows, columns_to_read
from diptych.data.rows import Columns, records_of_rows
from diptych.data.sources.source import Look, Reject, Source, SourceConfig


def recognises(found: Look) -> bool:
    """Whether this is a folder that `save_to_disk` wrote."""
    return not found.is_file and (
        "dataset_dict.json" in found.names or {"state.json", "dataset_info.json"} <= found.names
    )


class HuggingfaceConfig(SourceConfig):
    """Columns are found by their type and their usual names where not given; a ClassLabel column gives its names."""

    path: str
    image_column: str = ""
    caption_column: str = ""
    images_only: bool = False

    def build(self) -> "Huggingface":
        """The source."""
        return Huggingface(self)


class Huggingface(Source):
    """A record a row, split by split; several splits keep their names."""

    config: HuggingfaceConfig

    def __init__(self, config: HuggingfaceConfig) -> None:
        self.config = config
        self.images_only = config.images_only
        self.root = Path(config.path)
        names = _read(self.root / "dataset_dict.json").get("splits", []) if self._is_dict() else [""]
        if not isinstance(names, list) or not all(isinstance(n, str) and "/" not in n and n != ".." for n in names):
            raise DataError(f"{self.root}/dataset_dict.json must list splits; got {names!r}. Save the dataset again.")
        self.splits = names

    def records(self) -> Iterator[Record | Reject]:
        """The rows of each split in order."""
        for split in self.splits:
            folder = self.root / split
            features = _read(folder / "dataset_info.json").get("features")
            n, columns = 0, None
            for file in _arrow_files(folder):
                with pa.memory_map(str(file)) as source:
                    reader = _open(source, file)
                    if columns is None:
                        config = self.config
                        columns = arrow_columns(
                            reader.schema,
                            str(folder),
                            config.image_column,
                            config.caption_column,
                            self.images_only,
                            features,
                        )
                    rows = self._rows(reader, file, columns, split, n)
                    for record in records_of_rows(rows, columns, self.root, self.max_bytes, merge=False):
                        n += 1
                        yield record

    def where(self, key: str) -> str:
        """The split and its row."""
        split, _, row = key.rpartition("-")
        return f"{self.root / split if split else self.root} row {int(row) if row.isdigit() else row}"

    def _is_dict(self) -> bool:
        return (self.root / "dataset_dict.json").exists()

    def _rows(
        self, reader: Any, file: Path, columns: Columns, split: str, n: int
    ) -> Iterator[Reject | tuple[str, str, Mapping[str, Any]]]:
        prefix = f"{split}-" if split else ""
        names = columns_to_read(reader.schema, columns)
        try:
            for batch in reader:
                for row in batch_rows(batch.select(names)):
                    n += 1
                    marked = {**row, "split": split} if len(self.splits) > 1 and not row.get("split") else row
                    yield f"{prefix}{n:09d}", f"{file} row {n}", marked
        except (pa.ArrowException, OSError) as error:
            message = f"an arrow file must be whole; this one breaks after row {n} ({error}). Save the dataset again."
            yield Reject(f"{prefix}{file.stem}-rest", message, "damaged_file", str(file))


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be readable JSON; got {error}. Save the dataset again.") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object; got a {type(value).__name__}. Save the dataset again.")
    return value


def _arrow_files(folder: Path) -> list[Path]:
    listed = _read(folder / "state.json").get("_data_files") or []
    files = [folder / Path(str(entry["filename"])).name for entry in listed]  # a bare name: never out of the folder
    if (lost := next((f for f in files if not f.is_file()), None)) is not None:
        raise DataError(f"{folder}/state.json must list files that are there; {lost.name} is not. Copy it again.")
    return files


def _open(source: Any, file: Path) -> Any:
    try:
        return pa.ipc.open_stream(source)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} must be an arrow stream; got {error}. Save the dataset again.") from None
