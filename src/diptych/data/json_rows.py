"""Rows of JSON, one object a line or a list of objects, a row in memory at a time; and the images that rows name."""

import base64
import binascii
import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diptych.core.errors import DataError
from diptych.core.record import Record, Segment
from diptych.data.decode import sniff
from diptych.data.face_boxes import carried
from diptych.data.record_files import printable
from diptych.data.rows import MAX_META_CHARACTERS, image_bytes, suffix_of
from diptych.data.sources.source import Look, Reject, Source

MAX_OBJECT = 64 << 20
"""Characters of one row; a longer one is not JSON, or not a row."""
_CHUNK = 1 << 20
_HEAD = 1 << 16
_BETWEEN = re.compile(r"[\s,]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}\s*")

JsonRow = tuple[str, str, dict[str, Any]]
"""A row's key, where it is, and what it holds."""


def first_object(found: Look) -> dict[str, Any]:
    """The first row of a .json or .jsonl file that is an object with text in it; {} where there is none. A row that is
    longer than what is looked at tells its names all the same."""
    if not found.is_file or found.suffix not in ("json", "jsonl", "ndjson"):
        return {}
    try:
        with open(found.path, encoding="utf-8-sig", errors="replace") as file:
            head = file.read(_HEAD)
    except OSError:
        return {}
    text = head.lstrip().removeprefix("[").lstrip()
    for line in (text, *text.splitlines()[:20]):
        try:
            value, _ = json.JSONDecoder().raw_decode(line.strip())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return {name: [] for name in re.findall(r'"(\w+)"\s*:\s*\[', text)}  # its lists, by name


def json_rows(path: Path) -> Iterator[JsonRow | Reject]:
    """The rows of a file, keyed by their number, whichever form it has. What is no object is rejected by name; after
    broken JSON a list cannot go on, and its rest is one reject."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            head = file.read(_HEAD).lstrip()
            file.seek(0)
            yield from (_listed if head.startswith("[") else _lines)(file, path)
    except OSError as error:
        raise DataError(f"a source must be readable; got {error.strerror} for {path}.") from None


def _lines(file: Any, path: Path) -> Iterator[JsonRow | Reject]:
    row = number = 0
    while line := file.readline(MAX_OBJECT):
        number += 1
        if not line.strip():
            continue
        row += 1
        key, where = f"{row:09d}", f"{path} line {number}"
        if len(line) == MAX_OBJECT and not line.endswith("\n"):
            while (rest := file.readline(_CHUNK)) and not rest.endswith("\n"):
                pass
            yield Reject(key, f"a line must have at most {MAX_OBJECT:,} characters; it has more.", "bad_row", where)
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Reject(key, f"a line must be a JSON object; got {error}. Mend it.", "bad_json", where)
            continue
        yield _object(value, key, where)


def _listed(file: Any, path: Path) -> Iterator[JsonRow | Reject]:
    """Objects of a list, decoded one after another out of a window that moves through the file."""
    decoder, row, ended = json.JSONDecoder(), 0, False
    window = file.read(_CHUNK)
    at = window.index("[") + 1
    while True:
        at = _BETWEEN.match(window, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if window.startswith("]", at):
            return
        key, where = f"{row + 1:09d}", f"{path} item {row + 1}"
        try:
            value, at = decoder.raw_decode(window, at)
        except (ValueError, RecursionError) as error:
            if ended or len(window) - at > MAX_OBJECT:
                message = f"a list must be JSON to its end; got {error}. Mend the file: nothing after this is read."
                yield Reject(key, message, "bad_json", where)
                return
            more = file.read(max(_CHUNK, len(window) - at))
            window, at, ended = window[at:] + more, 0, not more
            continue
        row += 1
        yield _object(value, key, where)


def _object(value: Any, key: str, where: str) -> JsonRow | Reject:
    if isinstance(value, dict):
        return key, where, value
    return Reject(key, f"a row must be a JSON object; got a {type(value).__name__}. Mend it.", "bad_json", where)


def image_segment(value: Any, row: JsonRow, root: Path, max_bytes: int) -> Segment | Reject:
    """The image that a row names: a path below `root`, a data: link, base64, or an object with bytes, path, image or
    url. A link to elsewhere is rejected by name."""
    key, where, _ = row
    for name in ("bytes", "base64", "data", "image_url", "image", "url", "path"):
        if isinstance(value, Mapping) and value.get(name) is not None:
            value = value[name]
    data = _embedded(value) if isinstance(value, str) else None
    found = image_bytes(value if data is None else data, key, where, root, max_bytes)
    if isinstance(found, Reject):
        return found
    return Segment("image", found[0], suffix_of(found[1]), role="image")


def _embedded(text: str) -> bytes | None:
    """The bytes of a data: link, or of base64 that begins as an image does; None for anything else, a path above
    all."""
    match = re.match(r"data:image/[\w.+-]+;base64,", text[:100])
    if match is None and not _BASE64.fullmatch(text):
        return None
    try:
        data = base64.b64decode(text[match.end() if match else 0 :])
    except (binascii.Error, ValueError):
        return None
    return data if match or sniff(data) else None


def plain_meta(row: dict[str, Any], used: tuple[str, ...]) -> dict[str, Any]:
    """The other values of a row, as far as they are plain and short, or boxes of faces."""
    kept: dict[str, Any] = {}
    for name, value in row.items():
        short = isinstance(value, str) and 0 < len(value) <= MAX_META_CHARACTERS
        number = isinstance(value, (int, float)) and abs(value) < 2**63
        if name not in used and (short or number):
            kept[printable(name)] = printable(value) if isinstance(value, str) else value
        elif name not in used and (boxes := carried(value)) is not None:
            kept[printable(name)] = printable(boxes) if isinstance(boxes, str) else boxes
    return kept


class WrongRow(Exception):
    """Why a row is no record: a reason and a sentence."""


class JsonSource(Source):
    """A source of records that are a row of JSON each, keyed by its number. Its config has `path`, and `image_root`, at
    which images' paths start; "": at the file's folder."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.path = Path(config.path)
        self.root = Path(config.image_root) if config.image_root else self.path.parent

    def records(self) -> Iterator[Record | Reject]:
        """The records in their order."""
        for row in json_rows(self.path):
            if isinstance(row, Reject):
                yield row
                continue
            try:
                yield self.record_of(row)
            except WrongRow as wrong:
                yield Reject(row[0], wrong.args[1], wrong.args[0], row[1])

    def where(self, key: str) -> str:
        """The row in the file."""
        return f"{self.path} row {int(key)}"

    @abstractmethod
    def record_of(self, row: JsonRow) -> Record | Reject:
        """What a row is. Raises WrongRow."""
