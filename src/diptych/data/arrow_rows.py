"""Rows out of Arrow tables (parquet files, Hugging Face arrow files): which columns, and a few rows at a time."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from diptych.data.rows import Columns, choose_columns, class_names

BATCH_ROWS = 32
"""Rows turned to Python at once: each may hold an image."""


def arrow_columns(
    schema: pa.Schema, table: str, image: str, caption: str, images_only: bool, features: Any = None
) -> Columns:
    """The columns of a schema, by name, else the first that holds bytes or an Image struct."""
    features = features or features_of(schema)
    if not image:
        kinds = {name: schema.field(name).type for name in schema.names}
        image = next((name for name, kind in kinds.items() if _is_image(kind)), "")
    return choose_columns(schema.names, table, image, caption, images_only, class_names(features))


def features_of(schema: pa.Schema) -> Any:
    """The Hugging Face features that a schema's metadata describes, or None."""
    try:
        return json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return None


def batch_rows(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any]]:
    """The rows of a batch as dictionaries, a few at a time."""
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield from batch.slice(start, BATCH_ROWS).to_pylist()


def columns_to_read(schema: pa.Schema, columns: Columns) -> list[str]:
    """What is read of a row: the image, the captions, and every column that can become meta."""
    used = {columns.image, *columns.captions}
    return [name for name in schema.names if name in used or _is_plain(schema.field(name).type)]


def _is_plain(kind: pa.DataType) -> bool:
    """Numbers, texts, and boxes: lists of lists of numbers."""
    if _is_list(kind):
        inner = kind.value_type
        return _is_list(inner) and bool(pa.types.is_integer(inner.value_type) or pa.types.is_floating(inner.value_type))
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        names: Sequence[str] = [kind.field(i).name for i in range(kind.num_fields)]
        return "bytes" in names
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
