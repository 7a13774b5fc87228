"""Tables that can be asked in SQL without harm: a SQLite file of strangers, opened for reading alone, or csv and
parquet files copied into one.

A database is a program as much as it is data: a view may never end, a cell may be huge, a query may try to write or to
attach another file. So it is opened read-only, with its schema not trusted, with an authorizer that lets a statement
read and nothing else, and with a limit on the time that SQL takes, which is checked while it runs.
"""

import csv
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diptych.core.errors import DataError
from diptych.data.sources.source import Reject

HEAD = b"SQLite format 3\0"
MAX_LINE = 16 << 20
"""Characters of a line of a csv."""
MAX_FIELD = 4 << 20
MOST_COLUMNS = 500
STEPS = 5_000
"""Instructions of SQLite's machine between two looks at the clock."""
_HARMFUL = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})


class Unread(DataError):
    """The rest of a database cannot be read; `reason` says why in a word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Database:
    """A SQLite file that is only read. `max_seconds`: of SQL in all; `max_cell`: bytes of a value.

    Raises DataError where the file is no database.
    """

    def __init__(self, path: Path, max_seconds: float = 600, max_cell: int = 64 << 20) -> None:
        self.path, self.max_seconds = path, max_seconds
        self._spent = self._since = 0.0
        try:
            with open(path, "rb") as file:
                head = file.read(len(HEAD))
        except OSError as error:
            raise DataError(f"a database must be readable; got {error.strerror} for {path}. Check the path.") from None
        if head != HEAD:
            raise DataError(f"a database must be a SQLite file; {path} is not. Export its tables as csv or parquet.")
        try:
            self._connection = sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True, check_same_thread=False)
            self._guard(max_cell)
            self.tables = self._tables()
        except sqlite3.Error as error:
            raise DataError(f"a database must be whole; got {error} for {path}. Copy it again.") from None

    def _guard(self, max_cell: int) -> None:
        connection = self._connection
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "query_only = ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max_cell)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1_000_000)
        connection.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, MOST_COLUMNS)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(_only_reading)
        connection.set_progress_handler(self._is_late, STEPS)
        # bytes that are no UTF-8 become lone surrogates: the record is then rejected as bad_text, by name
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")

    def _is_late(self) -> bool:
        return self._spent + time.monotonic() - self._since > self.max_seconds

    def _tables(self) -> list[str]:
        self._since = time.monotonic()
        listed = self._connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        return sorted(name for (name,) in listed.fetchall() if not name.startswith("sqlite_"))

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns."""
        return self.ask(f"SELECT * FROM {quoted(table)} LIMIT 0")[0]

    def ask(self, sql: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """(the names of the columns, the rows one by one) of a SELECT.

        Raises DataError for what is no SELECT; while reading, Unread where the time is over or the file is damaged.
        """
        self._since = time.monotonic()
        try:
            cursor = self._connection.execute(sql)
        except (sqlite3.Error, sqlite3.Warning) as error:
            if self._is_late():
                raise self._late() from None
            raise DataError(f"a query must be one SELECT over {self.path}; got {error} for {sql[:200]!r}.") from None
        self._pause()
        return [c[0] for c in cursor.description or ()], self._fetch(cursor)

    def _fetch(self, cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
        while True:
            self._since = time.monotonic()  # what is done with the rows is not SQL's time
            try:
                row = cursor.fetchone()
            except (sqlite3.Error, OverflowError) as error:
                if self._is_late():
                    raise self._late() from None
                raise Unread(
                    "bad_database",
                    f"a database must be whole; got {error} in {self.path}. The rest of it was not read.",
                ) from None
            self._pause()
            if row is None:
                return
            yield row

    def _pause(self) -> None:
        self._spent += time.monotonic() - self._since

    def _late(self) -> Unread:
        return Unread(
            "time_limit",
            f"a query must end within {self.max_seconds:g} s of work; {self.path} took longer. The rest of it was not "
            "read. Raise max_seconds, or add an index.",
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _only_reading(action: int, first: str | None, second: str | None, *where: str | None) -> int:
    """SQLite's authorizer: SELECT, the reading of columns, recursion and harmless functions."""
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _HARMFUL:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first == "data_version":  # full-text tables ask for it themselves
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def as_database(tables: dict[str, Path], out: Path, index: tuple[str, str] | None = None) -> Iterator[Reject]:
    """Copy csv, tsv and parquet files into a new SQLite file, a table each; rows that are none are rejected by name.

    Whatever their number, the rows go to disk some at a time. Nothing is typed: a csv holds texts, a parquet numbers.
    `index`: (table, column) that a join looks up, as text. Raises DataError where the table has no such column.
    """
    connection = sqlite3.connect(out, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")  # a copy that nobody needs after a crash
        connection.execute("BEGIN")
        for table, path in tables.items():
            parquet = path.suffix.lower() in (".parquet", ".pq")
            rows = _parquet_rows(path) if parquet else _csv_rows(path)
            names = next(rows)
            assert isinstance(names, list)
            _check_names(names, path)
            connection.execute(f"CREATE TABLE {quoted(table)} ({', '.join(map(quoted, names))})")
            insert = f"INSERT INTO {quoted(table)} VALUES ({', '.join('?' * len(names))})"
            for number, row in enumerate(rows, 1):
                key, where = f"{table}-{number:09d}", f"{path} row {number}"
                if isinstance(row, str):
                    yield Reject(key, row, "bad_row", where)
                    continue
                try:
                    connection.execute(insert, row)
                except UnicodeEncodeError:
                    yield Reject(
                        key, "a row must be UTF-8; this one is not. Save the table as UTF-8.", "bad_text", where
                    )
                except (sqlite3.Error, OverflowError) as error:
                    yield Reject(key, f"a row must fit a table; got {error}. Mend it.", "bad_row", where)
        if index is not None:
            table, column = map(quoted, index)
            connection.execute(f"CREATE INDEX looked_up ON {table} (CAST({column} AS TEXT))")
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise DataError(f"a table must have the column that it is joined on; got {error}. Name another.") from None
    finally:
        connection.close()


def _check_names(names: list[Any], path: Path) -> None:
    lower = [str(n).lower() for n in names]  # as SQLite compares them
    twice = next((n for n in lower if lower.count(n) > 1 or not n), None)
    if twice is not None or not 0 < len(names) <= MOST_COLUMNS:
        got = f"{len(names)} columns" if twice is None else f"{twice!r} twice" if twice else "one without a name"
        raise DataError(
            f"{path} must have 1 to {MOST_COLUMNS} columns with names of their own; got {got}. Mend its head."
        )


def _csv_rows(path: Path) -> Iterator[list[Any] | str]:
    """The head of a csv or tsv, then its rows, or what is wrong with one."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            start = file.readline(MAX_LINE)
            mark = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=start.count)
            names = [n.strip() for n in next(csv.reader([start], delimiter=mark), [])]
            yield list[Any](names)
            reader = csv.reader(_lines(file, path), delimiter=mark)
            while True:
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield f"a row must be one of a csv; got {error} at line {reader.line_num + 1}. Mend it."
                    continue
                if row and len(row) != len(names):
                    yield f"a row must have {len(names)} fields; got {len(row)}. Quote what holds {mark!r}."
                elif row:
                    yield list[Any](row)
    except OSError as error:
        raise DataError(f"a table must be readable; got {error.strerror} for {path}. Check the path.") from None


def _lines(file: Any, path: Path) -> Iterator[str]:
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE and not line.endswith("\n"):
            raise DataError(f"a line of {path} must have at most {MAX_LINE:,} characters; got more. Is it a csv?")
        yield line


def _parquet_rows(path: Path) -> Iterator[list[Any] | str]:
    try:
        with pq.ParquetFile(path) as file:
            yield list[Any](file.schema_arrow.names)
            for batch in file.iter_batches(256):
                columns = [batch.column(i).to_pylist() for i in range(batch.num_columns)]
                for row in zip(*columns, strict=True):
                    yield [_cell(v) for v in row]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"a table must be a whole parquet file; got {error} for {path}. Copy it again.") from None


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bytes)):
        return value
    if isinstance(value, dict) and value.get("bytes") is not None:  # an image as Hugging Face keeps it
        return value["bytes"]
    return json.dumps(value, default=str) if isinstance(value, (list, dict)) else str(value)
