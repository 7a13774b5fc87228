"""A table's row to a record: which columns hold the image, the captions and the rest. Shared by the tabular sources."""

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.face_boxes import carried
from diptych.data.record_files import printable
from diptych.data.sources.source import SPLIT_NAMES, Reject, read_file

IMAGE_COLUMNS = (
    *("image", "image_path", "image_file", "image_name", "image_filename", "filepath", "file_path", "file_name"),
    *("filename", "file", "path", "img", "img_path", "picture", "photo", "jpg", "png", "webp", "images"),
)
CAPTION_COLUMNS = (
    *("captions", "caption", "caption_text", "texts", "text", "description", "descriptions", "sentences", "sentence"),
    *(
        "raw_caption",
        "alt_text",
        "alt",
        "title",
        "prompt",
        "txt",
        "comment",
        "label_name",
        "label",
        "class",
        "category",
    ),
)
CLASS_COLUMNS = frozenset({"label_name", "label", "class", "category"})
"""Captions that are the name of a class stay in the meta too, where evals look for it."""
URL_COLUMNS = ("url", "image_url", "img_url", "link", "src")
MAX_META_CHARACTERS = 2000


@dataclass(frozen=True)
class Columns:
    """Which column means what. `names` maps the integers of a class column to words."""

    image: str
    captions: tuple[str, ...]
    split: str | None = None
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)


def choose_columns(
    known: Sequence[str],
    table: str,
    image: str = "",
    caption: str = "",
    images_only: bool = False,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Columns:
    """The columns by the user's word, else by their usual names (in any case). `caption` may list several by commas.

    Raises DataError that says which columns there are and how to name one.
    """
    by_lower = {name.strip().lower(): name for name in known}
    chosen_image = _named(image, known, table, "image_column") if image else ""
    wanted = [_named(c.strip(), known, table, "caption_column") for c in caption.split(",") if c.strip()]
    if not chosen_image:
        chosen_image = next((by_lower[c] for c in IMAGE_COLUMNS if c in by_lower), "")
        links = next((by_lower[c] for c in URL_COLUMNS if c in by_lower), "")
        if not chosen_image and links:
            raise DataError(
                f"{table} must have a column of image files; got links in {links!r}. "
                "Download them first (img2dataset does) and pack its tars."
            )
        if not chosen_image:
            raise DataError(
                f"{table} must have a column of images; got the columns {', '.join(known)}. Name it with image_column."
            )
    if not wanted and not images_only:
        found = next((by_lower[c] for c in CAPTION_COLUMNS if c in by_lower and by_lower[c] != chosen_image), None)
        if found is None:
            raise DataError(
                f"{table} must have a column of captions; got the columns {', '.join(known)}. "
                "Name it with caption_column, or pack with images_only."
            )
        wanted = [found]
    return Columns(chosen_image, tuple(wanted), by_lower.get("split"), names or {})


def _named(name: str, known: Sequence[str], table: str, option: str) -> str:
    if name in known:
        return name
    close = get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"It has: {', '.join(known)}."
    raise DataError(f"{option} must be a column of {table}; got {name!r}. {hint}")


def row_to_record(
    row: Mapping[str, Any], columns: Columns, key: str, where: str, root: Path, max_bytes: int
) -> Record | Reject:
    """The record in a row, or why there is none. Relative paths are resolved against `root`."""
    found = image_bytes(row.get(columns.image), key, where, root, max_bytes)
    if isinstance(found, Reject):
        return found
    data, path = found
    return Record.pair(key, data, suffix_of(path), _captions(row, columns), meta=meta_of(row, columns, path))


def records_of_rows(
    rows: "Iterable[Reject | tuple[str, str, Mapping[str, Any]]]",
    columns: Columns,
    root: Path,
    max_bytes: int,
    merge: bool = True,
) -> Iterator[Record | Reject]:
    """Records of (key, where, row) in order. With `merge`, neighbouring rows that name the same image file become one
    record with all their captions, as tables with a row a caption mean it."""

    def same(item: "Reject | tuple[str, str, Mapping[str, Any]]") -> object:
        value = None if isinstance(item, Reject) else item[2].get(columns.image)
        return value if merge and isinstance(value, str) and value else object()  # bytes are never compared

    for _, members in itertools.groupby(rows, same):
        group = iter(members)
        first = next(group)
        if isinstance(first, Reject):
            yield first
            continue
        key, where, row = first
        record = row_to_record(row, columns, key, where, root, max_bytes)
        extra: tuple[str, ...] = ()
        for item in group:
            extra += () if isinstance(item, Reject) else _captions(item[2], columns)
        if extra and isinstance(record, Record):
            text = record.segments[1]
            record = replace(record, segments=(record.segments[0], replace(text, payload=text.texts + extra)))
        yield record


def _captions(row: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    return tuple(t for c in columns.captions for t in texts_of(row.get(c), columns.names.get(c, ())))


def image_bytes(value: Any, key: str, where: str, root: Path, max_bytes: int) -> "tuple[bytes, str] | Reject":
    """(bytes, path or "") behind an image column's value: bytes, {"bytes", "path"}, a path, or a list of just one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    path = ""
    if isinstance(value, Mapping):
        path = str(value.get("path") or "")
        value = value["bytes"] if value.get("bytes") is not None else path
    if isinstance(value, (bytes, bytearray, memoryview)):
        if len(value) > max_bytes:
            message = f"an image must have at most {max_bytes:,} bytes; got {len(value):,}. Raise max_bytes."
            return Reject(key, message, "too_many_bytes", where, len(value))
        return bytes(value), path
    if (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    ):
        return Reject(key, "a row must name an image; its image is empty.", "no_image", where)
    if not isinstance(value, str):
        message = f"an image must be bytes or a path; got a {type(value).__name__}. Name another image_column."
        return Reject(key, message, "bad_row", where)
    text = value.strip().removeprefix("file://")
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]{1,15}://|data:", text):
        message = (
            f"an image must be a file; got the link {text[:80]}. Download it first (img2dataset does), pack its tars."
        )
        return Reject(key, message, "is_url", where)
    file = root / text
    data = read_file(file, key, max_bytes)
    if isinstance(data, Reject):
        return Reject(key, data.message, data.reason, where, data.size)
    return data, text


def texts_of(value: Any, names: Sequence[str] = ()) -> tuple[str, ...]:
    """The captions in a cell: a text, a list of texts, a JSON list in a text, or a class number with its names."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ()
    if isinstance(value, str):
        if value.startswith("[") and value.rstrip().endswith("]"):
            try:
                listed = json.loads(value)
            except ValueError:
                listed = None
            if isinstance(listed, list) and listed and all(isinstance(t, str) for t in listed):
                return tuple(listed)
        return (value,)
    if isinstance(value, Mapping):  # COCO's {"raw": ...} and its like
        for name in ("raw", "caption", "text", "sentence"):
            if isinstance(value.get(name), str):
                return (value[name],)
        return ()
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return tuple(t for v in value for t in texts_of(v, names))
    if isinstance(value, bool):
        return (str(value).lower(),)
    if isinstance(value, int) and 0 <= value < len(names):
        return (names[value].replace("_", " "),)
    return (str(value),)


def meta_of(row: Mapping[str, Any], columns: Columns, path: str) -> dict[str, Any]:
    """The other columns, as far as they are plain and short, or boxes of faces; "image" is the path."""
    meta: dict[str, Any] = {}
    for name, value in row.items():
        said = name in columns.captions and str(name).lower() not in CLASS_COLUMNS
        if name is None or name == columns.image or said or value is None:
            continue
        plain = (isinstance(value, int) and abs(value) < 2**63) or (isinstance(value, float) and math.isfinite(value))
        if plain or (isinstance(value, str) and value and len(value) <= MAX_META_CHARACTERS):
            meta[name] = value
        elif (boxes := carried(value)) is not None:
            meta[name] = boxes
    if columns.split is not None and "split" not in meta and meta.get(columns.split):
        meta["split"] = meta[columns.split]
    if path:
        meta["image"] = printable(path)
    for c in columns.captions:
        if columns.names.get(c) and isinstance(row.get(c), int):
            meta[c] = row[c]  # a class number stays beside the words it became
    return meta


def suffix_of(path: str) -> str:
    """The file ending of a path, lower case; "jpg" where there is none (the decoder looks for itself)."""
    return PurePath(path).suffix.lower().removeprefix(".") or "jpg"


def class_names(features: Any) -> dict[str, list[str]]:
    """{column: names} of the ClassLabel columns in a Hugging Face features description."""
    if not isinstance(features, Mapping):
        return {}
    return {
        column: [str(n) for n in feature["names"]]
        for column, feature in features.items()
        if isinstance(feature, Mapping)
        and feature.get("_type") == "ClassLabel"
        and isinstance(feature.get("names"), list)
    }


def split_of_path(parts: Iterable[str]) -> str | None:
    """The split that a part of a path tells ("train", "validation-00000-of-00001.parquet"), the outermost first."""
    for part in parts:
        word = re.split(r"[-_.]", part.lower(), maxsplit=1)[0]
        rest = part[len(word) :]  # "-00000-of-00001.parquet", ".tar", or nothing; but not "-set"
        if word in SPLIT_NAMES and (not rest or re.search(r"\d", rest) or re.fullmatch(r"\.\w+", rest)):
            return SPLIT_NAMES[word]
    return None
