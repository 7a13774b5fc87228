"""A table that names images and captions: .csv, .tsv, .jsonl, or a folder with a metadata.csv or metadata.jsonl."""

import csv
import itertools
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.image_folder import LOOKED_AT, find_image_folder
from diptych.data.rows import Columns, choose_columns, records_of_rows
from diptych.data.sources.source import Look, Reject, Source, SourceConfig, is_taken

GENERAL = True
MAX_LINE = 16 << 20
LOOK_AHEAD = 20
"""Rows of JSON whose names are looked at to choose the columns."""
MAX_ROW_LINES = 200
"""A quoted field that goes on for more lines than this was never closed."""

Row = tuple[str, str, dict[str, Any]]


def recognises(found: Look) -> bool:
    """Whether this is a table of text whose rows are pairs, or a folder with one called metadata."""
    if found.is_file:
        if found.suffix in ("jsonl", "ndjson"):
            return not is_taken(found)
        return found.suffix in ("csv", "tsv", "txt")
    return bool({"metadata.csv", "metadata.jsonl"} & found.names) and not is_taken(found)


class TableConfig(SourceConfig):
    """`image_column` and `caption_column` (several by commas) are found by their usual names where empty. Relative
    image paths start at `image_root`, else at the table's folder. `encoding` and `delimiter` are found where empty
    (UTF-8, or what a byte order mark says). `merge_rows` joins neighbouring rows of one image into one record."""

    path: str
    image_column: str = ""
    caption_column: str = ""
    image_root: str = ""
    encoding: str = ""
    delimiter: str = ""
    merge_rows: bool = True
    images_only: bool = False

    def build(self) -> "Table":
        """The source."""
        return Table(self)


class Table(Source):
    """A record a row (or a run of rows of one image), keyed by the number of its row."""

    config: TableConfig

    def __init__(self, config: TableConfig) -> None:
        self.config = config
        self.images_only = config.images_only
        path = Path(config.path)
        self.path = path
        if path.is_dir():
            self.path = next(p for p in (path / "metadata.csv", path / "metadata.jsonl") if p.exists())
        self.root = Path(config.image_root) if config.image_root else self.path.parent

    def records(self) -> Iterator[Record | Reject]:
        """The rows in their order. Raises DataError if the table has no image or caption column."""
        lines = _Lines(self.path, self.config.encoding)
        try:
            rows: Iterator[Row | Reject]
            if self.path.suffix.lower() in (".jsonl", ".ndjson"):
                columns, rows = self._json_rows(lines)
            else:
                columns, rows = self._csv_rows(lines)
            root, rows = self._root(rows, columns)
            yield from records_of_rows(rows, columns, root, self.max_bytes, self.config.merge_rows)
        finally:
            lines.close()

    def where(self, key: str) -> str:
        """The row in the file."""
        return f"{self.path} row {int(key)}"

    def _root(self, rows: Iterator[Row | Reject], columns: Columns) -> tuple[Path, Iterator[Row | Reject]]:
        """The folder at which the paths of images start, and the rows from their first. Where not one of the first
        images lies where it should, it is looked for as Flickr's tables have it, in a folder beside."""
        first, names = list[Row | Reject](), list[str]()
        for row in rows if not self.config.image_root else ():
            first.append(row)
            value = None if isinstance(row, Reject) else row[2].get(columns.image)
            if isinstance(value, str) and value.strip() and "://" not in value:
                names.append(value.strip())
                if _is_there(self.root / names[-1]):
                    return self.root, itertools.chain(first, rows)
            if len(first) == LOOKED_AT:
                break
        lost = len(names) > 1  # of one alone it is the name that is wrong
        root = find_image_folder([(n,) for n in names], self.path) if lost else self.root
        return root, itertools.chain(first, rows)

    def _choose(self, names: list[str]) -> Columns:
        config = self.config
        return choose_columns(names, str(self.path), config.image_column, config.caption_column, self.images_only)

    def _json_rows(self, lines: "_Lines") -> tuple[Columns, Iterator[Row | Reject]]:
        objects = self._objects(lines)
        waiting, names = deque[Row | Reject](), dict[str, None]()
        found = 0
        for item in objects:  # rejects before the first good row wait too, and must not be lost
            waiting.append(item)
            if not isinstance(item, Reject):
                names |= dict.fromkeys(item[2])
                found += 1
            if found == LOOK_AHEAD:  # the first row alone may lack what the others have
                break
        if not found:
            raise DataError(f"{self.path} must hold a JSON object a line; it holds none. Check that it is JSON lines.")

        def rows() -> Iterator[Row | Reject]:
            yield from waiting
            yield from objects

        return self._choose(list(names)), rows()

    def _objects(self, lines: "_Lines") -> Iterator[Row | Reject]:
        row = 0
        while (line := lines.next()) is not None:
            if not line.strip():
                continue
            row += 1
            key, where = f"{row:09d}", f"{self.path} line {lines.number}"
            if lines.too_long:
                yield Reject(
                    key, f"a line must be at most {MAX_LINE:,} characters; this one is longer.", "bad_row", where
                )
                continue
            try:
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise ValueError(f"a {type(value).__name__}")
            except (ValueError, RecursionError) as error:
                yield Reject(key, f"a line must be a JSON object; got {error}. Mend it.", "bad_json", where)
                continue
            yield key, where, value

    def _csv_rows(self, lines: "_Lines") -> tuple[Columns, Iterator[Row | Reject]]:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))  # a line is never longer than that
        head = lines.next()
        while head is not None and not head.strip():
            head = lines.next()
        if head is None:
            raise DataError(f"{self.path} must have a line of column names; it is empty.")
        mark = self.config.delimiter or ("\t" if self.path.suffix.lower() == ".tsv" else max(",;\t|", key=head.count))
        names = [n.strip() for n in next(csv.reader([head], delimiter=mark))]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise DataError(f"the columns of {self.path} must have different names; got {twice!r} twice. Rename one.")
        return self._choose(names), self._csv_body(lines, names, mark)

    def _csv_body(self, lines: "_Lines", names: list[str], mark: str) -> Iterator[Row | Reject]:
        row = 0
        while (line := lines.next()) is not None:
            if not line.strip():
                continue
            row += 1
            key, where = f"{row:09d}", f"{self.path} line {lines.number}"
            if lines.too_long:
                yield Reject(
                    key, f"a line must be at most {MAX_LINE:,} characters; this one is longer.", "bad_row", where
                )
                continue
            fields = _fields(line, lines, len(names), mark)
            if isinstance(fields, str):
                yield Reject(key, fields, "bad_row", where)
                continue
            if mark == "|":  # Flickr30k's results.csv, like most such tables, has spaces around its bars
                fields = [f.strip() for f in fields]
            yield key, where, dict(zip(names, fields, strict=True))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or no name at all
        return False


def _fields(line: str, lines: "_Lines", count: int, mark: str) -> list[str] | str:
    """The `count` fields of the row that begins with `line`, or what is wrong with it.

    A quoted field may span lines. If its quote is never closed, only the line that opened it is lost: the lines that
    it would have swallowed are put back.
    """
    parts, size = [line], len(line)
    while True:
        try:
            fields = next(csv.reader(parts, delimiter=mark, strict=True))
            problem = ""
            break
        except csv.Error as error:
            problem = str(error)
        if "unexpected end" not in problem or len(parts) >= MAX_ROW_LINES or size >= MAX_LINE:
            break
        more = lines.next()
        if more is None:
            break
        parts.append(more)
        size += len(more)
    if not problem and len(fields) == count:
        return fields
    lines.put_back(parts[1:])
    plain = line.rstrip("\r\n").split("\t")
    if mark == "\t" and len(plain) == count:  # tab-separated text often holds bare quotes
        return plain
    if problem and "unexpected end" not in problem and len(parts) == 1:
        fields = next(
            csv.reader(parts, delimiter=mark)
        )  # a quote inside a field, which a lenient reader takes as it is
        if len(fields) == count:
            return fields
        problem = ""
    if problem or len(parts) > 1:
        return "a row must close its quotes; this one does not. Double the quotes inside a field, and end it with one."
    return f"a row must have {count} fields; got {len(fields)}. Put quotes round a field that holds {mark!r}."


class _Lines:
    """Lines of a text file, one at a time, of bounded length, that can be put back."""

    def __init__(self, path: Path, encoding: str) -> None:
        try:
            with open(path, "rb") as f:
                start = f.read(4)
            marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
            found = next((name for mark, name in marks.items() if start.startswith(mark)), "utf-8")
            # bytes that do not decode become lone surrogates: the record's text is then rejected as bad_text, by name
            asked = encoding.lower().replace("_", "-")
            name = found if asked in ("", "utf-8", "utf8") else encoding
            self._file: TextIO = open(path, encoding=name, errors="surrogateescape", newline="")  # noqa: SIM115
        except LookupError:
            raise DataError(f"encoding must be one that Python knows; got {encoding!r}. Try utf-8 or cp1252.") from None
        except OSError as error:
            raise DataError(f"a table must be readable; got {error.strerror} for {path}.") from None
        self._path = path
        self._back: deque[str] = deque()
        self.number = 0
        self.too_long = False

    def next(self) -> str | None:
        """The next line with its end, or None. A line that is too long comes cut, with `too_long` set."""
        self.number += 1
        self.too_long = False
        if self._back:
            return self._back.popleft()
        try:
            line = self._file.readline(MAX_LINE)
            if len(line) == MAX_LINE and not line.endswith("\n"):
                self.too_long = True
                while (rest := self._file.readline(MAX_LINE)) and not rest.endswith("\n"):
                    pass
        except UnicodeError as error:
            raise DataError(
                f"{self._path} must be text; got {error}. Name its encoding, or save it as UTF-8."
            ) from None
        return line or None

    def put_back(self, lines: list[str]) -> None:
        """Have these lines come again, first."""
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
